//! The report of an examination.

use std::fmt::Write as _;

use super::advice::{Cause, Place};
use super::judge::{Finding, Verdict};

/// Returns a line for each check, each followed by the lines to change. Without a known proxy, the
/// report has the lines for all proxies of the guide.
pub(crate) fn report(findings: &[Finding], proxy: Option<Place>) -> String {
    let mut text = String::new();
    for Finding { check, verdict, detail } in findings {
        let (verdict, cause) = match verdict {
            Verdict::Ok => ("ok", None),
            Verdict::Fault(cause) => ("FAULT", Some(cause)),
            Verdict::Advice(cause) => ("advice", Some(cause)),
            Verdict::NotChecked => ("not checked", None),
        };
        let _ = writeln!(text, "{:<14} {verdict:<12} {detail}", check.name());
        let Some(advice) = cause.map(|cause| cause.advice()) else { continue };
        let _ = writeln!(text, "{:27} {}", "", advice.says);
        for (place, line) in advice.lines(proxy) {
            let _ = writeln!(text, "{:27} {:<8} {line}", "", place.name());
        }
    }
    text
}

/// Returns the causes of all faults.
pub(crate) fn faults(findings: &[Finding]) -> Vec<Cause> {
    let faults = findings.iter().filter_map(|finding| match finding.verdict {
        Verdict::Fault(cause) => Some(cause),
        _ => None,
    });
    faults.collect()
}
