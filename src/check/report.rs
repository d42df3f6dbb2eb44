//! What the steps found, one line each or as JSON.

use std::io::{self, Write};

use serde::Serialize;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It works; with what was seen.
    Ok {
        /// What was seen.
        detail: String,
    },
    /// Not tried.
    Skip {
        /// Why not.
        reason: String,
    },
    /// It does not work.
    Fail {
        /// What happened.
        reason: String,
        /// What to do about it.
        advice: String,
    },
}

impl Outcome {
    /// Works.
    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Self::Ok { detail: detail.into() }
    }

    /// Not tried.
    pub(super) fn skip(reason: impl Into<String>) -> Self {
        Self::Skip { reason: reason.into() }
    }
}

impl From<Problem> for Outcome {
    fn from(problem: Problem) -> Self {
        Self::Fail { reason: problem.reason, advice: problem.advice }
    }
}

impl From<Result<String, Problem>> for Outcome {
    fn from(result: Result<String, Problem>) -> Self {
        result.map_or_else(Self::from, |detail| Self::Ok { detail })
    }
}

/// What is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// What happened.
    pub(super) reason: String,
    /// What to do about it.
    pub(super) advice: String,
}

impl Problem {
    /// A problem.
    pub(super) fn new(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: advice.into() }
    }
}

/// A step that has been made.
#[derive(Serialize)]
struct Step {
    name: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Prints steps as they end, or keeps them for one JSON document.
pub(super) struct Report {
    steps: Vec<Step>,
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    steps: &'a [Step],
}

impl Report {
    /// An empty report.
    pub(super) fn new(json: bool) -> Self {
        Self { steps: Vec::new(), json }
    }

    /// Takes down how a step ended.
    pub(super) fn add(
        &mut self,
        out: &mut dyn Write,
        name: &'static str,
        outcome: Outcome,
    ) -> io::Result<()> {
        if !self.json {
            match &outcome {
                Outcome::Ok { detail } => writeln!(out, "ok    {name:<15} {detail}")?,
                Outcome::Skip { reason } => writeln!(out, "skip  {name:<15} {reason}")?,
                Outcome::Fail { reason, advice } => writeln!(out, "FAIL  {name:<15} {reason}: {advice}")?,
            }
            out.flush()?;
        }
        self.steps.push(Step { name, outcome });
        Ok(())
    }

    /// Prints what is left to print. True when no step failed.
    pub(super) fn finish(self, out: &mut dyn Write) -> io::Result<bool> {
        let ok = !self.steps.iter().any(|step| matches!(step.outcome, Outcome::Fail { .. }));
        if self.json {
            serde_json::to_writer(&mut *out, &Document { ok, steps: &self.steps })?;
            writeln!(out)?;
        }
        Ok(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool) -> (bool, String) {
        let (mut out, mut report) = (Vec::new(), Report::new(json));
        let steps = [
            ("stun", Outcome::ok("fine")),
            ("turn-tls", Outcome::skip("not advertised")),
            ("echo", Problem::new("no answer", "look at the firewall").into()),
        ];
        for (name, outcome) in steps {
            report.add(&mut out, name, outcome).expect("a vector takes all");
        }
        let ok = report.finish(&mut out).expect("a vector takes all");
        (ok, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn one_line_a_step() {
        let (ok, text) = printed(false);
        assert!(!ok);
        assert_eq!(
            text,
            "ok    stun            fine\nskip  turn-tls        not advertised\n\
             FAIL  echo            no answer: look at the firewall\n"
        );
    }

    #[test]
    fn one_document() {
        let (_, text) = printed(true);
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(document["ok"], false);
        assert_eq!(document["steps"][0]["result"], "ok");
        assert_eq!(document["steps"][2]["advice"], "look at the firewall");
    }
}
