//! The commands of the guide's page `first_hour`, as a reader types them: line by line, into a
//! shell. The first part, which builds a package, is in `tests/readme.rs`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Request;
use crate::ports::Port;
use crate::server::{DEADLINE, program};

/// The lines of the page's `sh` blocks, by the number of the part. The build is not included.
fn commands(part: u32) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/first_hour.rs");
    let page = fs::read_to_string(path).unwrap();
    let (mut current, mut is_code, mut found) = (0, false, Vec::new());
    for line in page.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim_start) {
        if let Some(heading) = line.strip_prefix("# ") {
            let number = heading.split_once('.').and_then(|(number, _)| number.parse().ok());
            current = number.unwrap_or(0);
        } else if line.starts_with("```") {
            is_code = line == "```sh";
        } else if is_code && current == part {
            found.push(line.to_owned());
        }
    }
    assert!(!found.is_empty(), "the page has no commands for part {part}");
    found
}

/// A shell with the programs that its commands start. Dropping the value kills all of them.
struct Shell {
    process: Child,
    input: ChildStdin,
    printed: Arc<(Mutex<String>, Condvar)>,
    /// The port of the page, and the port of this test.
    ports: Vec<(u16, Port)>,
    lines: usize,
    _folder: tempfile::TempDir,
}

impl Shell {
    /// Starts a shell in a folder with the example's files, in which `cargo run` runs the built
    /// example, and the ports are free.
    fn start() -> Self {
        let ports: Vec<_> =
            [3001, 3002, 3006, 3009, 6379, 9090].map(|port| (port, Port::take())).into();
        let folder = tempfile::tempdir().unwrap();
        let copied = folder.path().join("examples/metrics");
        fs::create_dir_all(&copied).unwrap();
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/metrics");
        for name in ["prometheus.yml", "alerts.yml"] {
            let text = fs::read_to_string(files.join(name)).unwrap();
            fs::write(copied.join(name), with_ports(&text, &ports)).unwrap();
        }
        let mut process = Command::new("bash")
            .current_dir(folder.path())
            .env_remove("REDIS_URL")
            .env_remove("PORT")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("bash is installed");
        let printed = Arc::new((Mutex::new(String::new()), Condvar::new()));
        read(process.stdout.take().unwrap(), Arc::clone(&printed));
        let input = process.stdin.take().unwrap();
        let mut shell = Self { process, input, printed, ports, lines: 0, _folder: folder };
        let examples = program("cluster");
        let examples = examples.parent().unwrap().display();
        // `exec`, so that `$!` is the process of the example, as with cargo.
        shell.write(&format!(
            "cargo() {{ [[ \"$1 $2 $3\" == 'run --all-features --example' ]] || exit 1; \
             program=$4; shift 5; exec \"{examples}/$program\" \"$@\"; }}; exec 2>&1"
        ));
        shell
    }

    fn write(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Runs commands of the page.
    fn run(&mut self, commands: &[String]) {
        for line in commands {
            let line = with_ports(line, &self.ports);
            let opened = self.text().matches("hub:open").count();
            self.lines += 1;
            let done = format!("== line {} is done", self.lines);
            self.write(&line);
            self.write(&format!("echo '{done}'"));
            self.until(&line, |text| text.contains(&done));
            // A reader waits for the output of a program in the background.
            if line.contains("curl -sN") && line.ends_with('&') && !line.contains("/dev/null") {
                self.until(&line, |text| text.matches("hub:open").count() > opened);
            }
            let listens = line.split_once("--port ").or_else(|| line.split_once("127.0.0.1:"));
            if let (Some((_, port)), false) =
                (listens, line.contains("curl ") || line.starts_with("export"))
            {
                let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
                let address = SocketAddr::from(([127, 0, 0, 1], digits.parse().unwrap()));
                self.until(&line, |_| TcpStream::connect(address).is_ok());
            }
        }
    }

    fn text(&self) -> String {
        self.printed.0.lock().unwrap().clone()
    }

    /// Waits until the whole output keeps the condition.
    fn until(&self, step: &str, condition: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut text = self.printed.0.lock().unwrap();
        while !condition(&text) {
            if Instant::now() >= deadline {
                let shown = text.clone();
                drop(text); // A panic with the lock would end the reader.
                panic!("{step}: {shown}");
            }
            // Some conditions look at ports, too.
            text = self.printed.1.wait_timeout(text, Duration::from_millis(50)).unwrap().0;
        }
    }

    fn port(&self, of_page: u16) -> u16 {
        self.ports.iter().find(|(port, _)| *port == of_page).unwrap().1.number()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let kill = format!("kill -KILL -{}", self.process.id());
        let _ = Command::new("sh").args(["-c", &kill]).status();
        let _ = self.process.wait();
    }
}

/// Replaces the ports of the page.
fn with_ports(text: &str, ports: &[(u16, Port)]) -> String {
    // By a mark: the digits of a free port can contain those of another port of the page.
    let mark = |at: usize| format!("<port {at}>");
    let (mut text, ports) = (text.to_owned(), ports.iter().enumerate());
    for (at, (of_page, _)) in ports.clone() {
        text = text.replace(&of_page.to_string(), &mark(at));
    }
    for (at, (_, port)) in ports {
        text = text.replace(&mark(at), &port.number().to_string());
    }
    text
}

/// Collects the output: a full pipe would block the programs.
fn read(output: impl Read + Send + 'static, printed: Arc<(Mutex<String>, Condvar)>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            *printed.0.lock().unwrap() += &(line + "\n");
            printed.1.notify_all();
        }
    });
}

/// Returns the number of lines of this text.
fn count(text: &str, line: &str) -> usize {
    text.lines().filter(|it| *it == line).count()
}

#[test]
#[ignore = "needs redis-server"]
fn clients_outlive_restarts_and_a_killed_instance() {
    let mut shell = Shell::start();
    // The page uses the port that the example expects.
    shell.run(&["export REDIS_URL=redis://127.0.0.1:6379".to_owned()]);
    shell.run(&commands(2));
    shell.until("two arrives", |text| count(text, "data: two") == 1);
    let text = shell.text();
    assert!(text.contains("\"resumed\":true"), "{text}");
    assert_eq!(count(&text, "data: one"), 1, "{text}");

    shell.run(&commands(3));
    shell.until("four arrives", |text| count(text, "data: four") == 1);
    assert_eq!(count(&shell.text(), "data: three"), 1, "{}", shell.text());

    let (end, restart) = (&commands(4)[5..], &commands(4)[..5]);
    shell.run(restart);
    shell.until("six arrives", |text| count(text, "data: six") == 1);
    let text = shell.text();
    // Once, from the old instance.
    assert_eq!(count(&text, "data: five"), 1, "{text}");
    assert_eq!(count(&text, "event: hub:end"), 2, "the ends of parts 2 and 4: {text}");
    assert_eq!(text.matches("\"reason\":\"drained\"").count(), 2, "{text}");
    assert!(!text.contains("hub:gap"), "{text}");
    shell.run(end);
}

#[test]
fn reloaded_page_gets_the_whole_answer() {
    let mut shell = Shell::start();
    shell.run(&commands(5));
    let text = shell.text();
    let streams: Vec<String> = text
        .split("event: hub:open\n")
        .skip(1)
        .map(|stream| {
            let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
            data.filter(|data| !data.starts_with('{')).collect()
        })
        .collect();
    let [first, second] = &streams[..] else { panic!("two streams: {text}") };
    assert!(first.starts_with("You asked: "), "{text}");
    assert!(second.starts_with(first) && second.len() > first.len(), "{text}");
    assert!(second.ends_with("token by token."), "{text}");
    assert_eq!(text.matches("{\"reason\":\"finished\",\"final\":true}").count(), 1, "{text}");
}

#[test]
#[ignore = "needs prometheus"]
fn prometheus_shows_the_clients() {
    let mut shell = Shell::start();
    let commands = commands(6);
    let (end, start) = commands.split_last().unwrap();
    shell.run(start);
    let prometheus = SocketAddr::from(([127, 0, 0, 1], shell.port(9090)));
    let has = |query: &str, is_expected: &dyn Fn(f64) -> bool| {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/query?query={query}");
        let response = Request::new(prometheus, "GET", &path).send();
        // Prometheus is not ready at once.
        response.status == 200 && {
            let value = &response.json()["data"]["result"][0]["value"][1];
            value.as_str().is_some_and(|value| is_expected(value.parse().unwrap()))
        }
    };
    shell.until("two clients", |_| has("sse_hub_clients", &|clients| clients == 2.0));
    shell.until("load", |_| has("rate(sse_hub_delivered_total[30s])", &|rate| rate > 0.0));
    shell.run(&["kill %3".to_owned()]);
    shell.until("a client left", |_| has("sse_hub_clients", &|clients| clients == 1.0));
    shell.run(std::slice::from_ref(end));
}
