//! The Prometheus text format, version 0.0.4: families of samples with HELP and TYPE.

use std::fmt::{Display, Write};

/// A page of metrics that is being written.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// A value that can go down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, "gauge", [(&[][..], value)]);
    }

    /// A value that only grows.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, "counter", [(&[][..], value)]);
    }

    /// A family of samples, each with its labels.
    pub(super) fn family<'a, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        samples: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], V)>,
    ) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        for (labels, value) in samples {
            if labels.is_empty() {
                self.line(format_args!("{name} {value}"));
                continue;
            }
            let labels: Vec<_> =
                labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escape(text))).collect();
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    /// The finished page.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a string does not fail");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format() {
        let mut page = Page::default();
        page.gauge("a", "What a is.", 1);
        page.family("b_total", "What b is.", "counter", [(&[("x", "q\"\\\n"), ("y", "z")][..], 2)]);
        assert_eq!(
            page.finish(),
            "# HELP a What a is.\n# TYPE a gauge\na 1\n# HELP b_total What b is.\n# TYPE b_total counter\n\
             b_total{x=\"q\\\"\\\\\\n\",y=\"z\"} 2\n"
        );
    }
}
