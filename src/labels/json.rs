//! One JSON array of all records.

use std::io::{self, Write};

use super::{Format, LabelRecord, LabelWriter};

pub const FORMAT: Format = Format {
    name: "json",
    help: "one JSON array",
    writer: |output| {
        Box::new(JsonArray {
            output,
            open: false,
        })
    },
};

struct JsonArray<'a> {
    output: Box<dyn Write + 'a>,
    open: bool,
}

impl LabelWriter for JsonArray<'_> {
    fn record(&mut self, record: &LabelRecord) -> io::Result<()> {
        self.output
            .write_all(if self.open { b",\n" } else { b"[\n" })?;
        self.open = true;
        Ok(serde_json::to_writer(&mut self.output, record)?)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.output
            .write_all(if self.open { b"\n]\n" } else { b"[]\n" })?;
        self.output.flush()
    }
}
