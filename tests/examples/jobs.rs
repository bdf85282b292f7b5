//! Jobs of the example `jobs`: progress, cancelling, and results for late pages.

use crate::server::Server;

fn start(server: &Server, rows: u32) -> String {
    let job = server.post(&format!("/jobs?rows={rows}")).send();
    assert_eq!(job.status, 202);
    format!("/jobs/{}", job.text())
}

#[test]
fn job_reports_progress_and_keeps_its_result() {
    let server = Server::start("jobs");
    let path = start(&server, 20);
    let mut stream = server.get(&path).send().stream();
    let (mut percents, mut result) = (Vec::new(), None);
    assert_eq!(stream.frame().event, "hub:open");
    while let Some(frame) = stream.next_frame() {
        match &*frame.event {
            "progress" => percents.push(frame.data.parse::<u32>().unwrap()),
            "result" => result = Some(frame.data),
            "hub:run-end" => {}
            _ => assert!(frame.is_final() && frame.reason() == Some("finished"), "{frame:?}"),
        }
    }
    assert!(percents.len() > 1 && percents.is_sorted() && percents.last() == Some(&100));
    assert_eq!(result.as_deref(), Some("20 rows"));

    // A late page gets the newest progress only, and the result.
    let late = server.get(&path).send().stream().text();
    assert_eq!(late.matches("event: progress\n").count(), 1, "{late}");
    assert!(late.contains("event: progress\ndata: 100\n") && late.contains("data: 20 rows\n"));
    assert_eq!(server.get("/jobs").send().text(), "job-0 finished 0 pages\n");
}

#[test]
fn cancelled_job_ends_as_stopped() {
    let server = Server::start("jobs");
    let path = start(&server, 100_000);
    let (mut stream, _) = server.get(&path).send().opened();
    assert_eq!(stream.frame().event, "progress");
    assert_eq!(server.get("/jobs").send().text(), "job-0 open 1 pages\n");
    assert_eq!(server.delete(&path).send().status, 202);
    let rest = stream.text();
    assert!(rest.contains("event: cancelled\n") && rest.contains(" of 100000 rows\n"), "{rest}");
    assert!(rest.ends_with("data: {\"reason\":\"stopped\",\"final\":true}\n\n"), "{rest}");
    assert_eq!(server.delete(&path).send().status, 410);
}

#[test]
fn failed_job_reports_why() {
    let server = Server::start("jobs");
    let text = server.get(&start(&server, 0)).send().stream().text();
    assert!(text.contains("event: problem\ndata: nothing to export\n"), "{text}");
    assert!(text.ends_with("data: {\"reason\":\"failed\",\"final\":true}\n\n"), "{text}");
}

#[test]
fn page_may_come_before_its_job() {
    let server = Server::start("jobs");
    let (mut stream, _) = server.get("/jobs/job-0").send().opened();
    start(&server, 5);
    assert_eq!(stream.frame().event, "progress");
}
