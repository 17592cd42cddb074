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

#[cfg(test)]
mod tests {
    use super::super::{LabelRecord, format};

    /// RFC 4180, section 2: fields with line breaks, quotes or commas are quoted, quotes doubled.
    #[test]
    fn paths_are_quoted_where_they_must_be() {
        let record = |path: &str, labels| LabelRecord {
            path: path.into(),
            label: 3,
            score: Some(0.25),
            distance: None,
            labels,
        };
        let mut bytes = Vec::new();
        let mut writer = (format("csv").unwrap().writer)(Box::new(&mut bytes));
        for (path, labels) in [
            ("a/b c.png", None),
            ("one, two.png", None),
            ("the \"best\".png", Some(vec![3, 40])),
            ("two\nlines.png", None),
            ("ü'é.png", None),
        ] {
            writer.record(&record(path, labels)).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        let expected = "path,label,score,distance,labels\n\
                        a/b c.png,3,0.25,,\n\
                        \"one, two.png\",3,0.25,,\n\
                        \"the \"\"best\"\".png\",3,0.25,,3 40\n\
                        \"two\nlines.png\",3,0.25,,\n\
                        ü'é.png,3,0.25,,\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
