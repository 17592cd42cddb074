//! JSON Lines: one object a line, without header, so that files can be joined and cut.

use std::io::{self, Write};

use super::{Format, LabelRecord, LabelWriter};

pub const FORMAT: Format = Format {
    name: "jsonl",
    help: "one JSON object a line (the default)",
    writer: |output| Box::new(JsonLines { output }),
};

struct JsonLines<'a> {
    output: Box<dyn Write + 'a>,
}

impl LabelWriter for JsonLines<'_> {
    fn record(&mut self, record: &LabelRecord) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, record)?;
        self.output.write_all(b"\n")
    }

    fn finish(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
