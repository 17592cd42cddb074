//! CSV with a header, quoted as RFC 4180 says. Several heads' labels are joined by spaces.

use std::io::{self, Write};

use super::{Format, LabelRecord, LabelWriter};

pub const FORMAT: Format = Format {
    name: "csv",
    help: "comma-separated values with a header: path,label,score,distance,labels",
    writer: |output| {
        Box::new(Csv {
            output: csv::Writer::from_writer(output),
            headed: false,
        })
    },
};

struct Csv<'a> {
    output: csv::Writer<Box<dyn Write + 'a>>,
    headed: bool,
}

impl Csv<'_> {
    fn head(&mut self) -> io::Result<()> {
        if !self.headed {
            self.headed = true;
            self.output
                .write_record(["path", "label", "score", "distance", "labels"])
                .map_err(to_io)?;
        }
        Ok(())
    }
}

impl LabelWriter for Csv<'_> {
    fn record(&mut self, record: &LabelRecord) -> io::Result<()> {
        self.head()?;
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let heads = record
            .labels
            .iter()
            .flatten()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(" ");
        self.output
            .write_record([
                &record.path,
                &record.label.to_string(),
                &number(record.score),
                &number(record.distance),
                &heads,
            ])
            .map_err(to_io)?;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.head()?;
        self.output.flush()
    }
}

/// csv's own conversion hides the kind, by which a closed pipe is known.
fn to_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
