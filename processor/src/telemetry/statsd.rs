//! Figures for DogStatsD: those of `/metrics`, counters as what came since the last time.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use navvy_vm::pool::figures::Report;
use tokio::net::UdpSocket;

use crate::figures;
use crate::launch::figures::Figure;
use crate::probes::{Health, Load};

/// Where DogStatsD listens.
pub const PORT: u16 = 8125;
const EVERY: Duration = Duration::from_secs(10);
/// Bytes of a datagram: whole on any network.
const DATAGRAM: usize = 1400;
/// Lines of one round: classes are named by configs.
const MOST_LINES: usize = 1000;

/// Sends figures, as long as it is polled.
pub async fn send(to: SocketAddr, health: Arc<Health>) {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = match UdpSocket::bind(any).await {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("Figures cannot be sent to DogStatsD at {to}: {error}."),
    };
    let (mut told, mut due) = (HashMap::new(), tokio::time::interval(EVERY));
    loop {
        due.tick().await;
        match crate::probes::load(&health).await {
            Ok(load) => {
                let mut lines = lines(&load, &mut told);
                lines.extend(health.of_nomad().iter().map(line));
                if let Some(machines) = &health.machines {
                    lines.extend(of_pool(machines.report().await.as_ref(), &mut told));
                }
                for datagram in datagrams(&lines) {
                    // Nobody listens, or the queue is full: figures come again.
                    socket.try_send_to(datagram.as_bytes(), to).ok();
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => tracing::warn!("Figures are not sent: {}.", navvy_job::chain::chain(&error)),
        }
    }
}

/// How far each counter was told, by its name and tags.
type Told = HashMap<String, u64>;

/// What came since the counter was told last. One that began anew, with its pool, is told from its next word on.
fn counted(prometheus: &str, tags: &str, value: u64, told: &mut Told) -> String {
    let more = value - told.insert(format!("{prometheus}{tags}"), value).unwrap_or(0).min(value);
    format!("{}:{more}|c{tags}", name(prometheus.trim_end_matches("_total")))
}

/// Figures of the pool of machines. `None`: it does not answer.
fn of_pool(report: Option<&Report>, told: &mut Told) -> Vec<String> {
    let mut lines = vec![format!("{}:{}|g", name("navvy_pool_up"), u8::from(report.is_some()))];
    let Some(report) = report else { return lines };
    for kind in report.kinds.iter().take(MOST_LINES / 6) {
        let of = format!("|g|#class:{},image:{}", tag(&kind.class), tag(&kind.image));
        let states = [("making", kind.making), ("warm", kind.warm), ("given", kind.given), ("removing", kind.removing)];
        let machines = name("navvy_pool_machines");
        lines.extend(states.map(|(state, count)| format!("{machines}:{count}{of},state:{state}")));
        lines.push(format!("{}:{}{of}", name("navvy_pool_waiting"), kind.waiting));
        lines.push(format!("{}:{}{of}", name("navvy_pool_oldest_seconds"), kind.oldest_s));
    }
    lines.push(counted("navvy_pool_launches_total", "", report.launches, told));
    for (fault, count) in &report.faults {
        lines.push(counted("navvy_pool_faults_total", &format!("|#fault:{}", tag(fault)), *count, told));
    }
    for (why, count) in &report.removals {
        lines.push(counted("navvy_pool_removals_total", &format!("|#why:{}", tag(why)), *count, told));
    }
    lines
}

/// `told`: how far each counter was told.
fn lines(load: &Load, told: &mut Told) -> Vec<String> {
    let mut lines = Vec::new();
    for counter in figures::ALL {
        lines.push(counted(counter.name, "", counter.value(), told));
    }
    lines.push(format!("{}:{}|g", name("navvy_live_bytes_held"), load.live_bytes));
    for (class, state, count) in load.tasks.iter().take(MOST_LINES) {
        lines.push(format!("{}:{count}|g|#class:{},state:{state}", name("navvy_tasks"), tag(class)));
    }
    lines
}

/// A figure that has its name already.
fn line(figure: &Figure) -> String {
    let tags: Vec<String> = figure.tags.iter().map(|(key, value)| format!("{key}:{}", tag(value))).collect();
    let tags = if tags.is_empty() { String::new() } else { format!("|#{}", tags.join(",")) };
    format!("{}:{}|g{tags}", figure.name, figure.value)
}

/// `navvy_claims` is `navvy.claims` there.
fn name(prometheus: &str) -> String {
    prometheus.replacen('_', ".", 1)
}

/// What would end a tag or a line is no part of one.
fn tag(text: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '*') { c } else { '_' };
    text.chars().take(100).map(kept).collect()
}

/// Whole lines, as many as fit.
fn datagrams(lines: &[String]) -> Vec<String> {
    let mut datagrams = vec![String::new()];
    for line in lines {
        if datagrams.last().is_some_and(|last| !last.is_empty() && last.len() + 1 + line.len() > DATAGRAM) {
            datagrams.push(String::new());
        }
        if let Some(last) = datagrams.last_mut() {
            let _written = write!(last, "{}{line}", if last.is_empty() { "" } else { "\n" });
        }
    }
    datagrams.retain(|datagram| !datagram.is_empty());
    datagrams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_by_what_came_and_names_end_no_line() {
        let tasks =
            vec![("medium".to_owned(), "queued".to_owned(), 3), ("a|c\nx:1".to_owned(), "claimed".to_owned(), 1)];
        let load = Load { tasks, live_bytes: 7 };
        let mut told = HashMap::from([("navvy_grants_total".to_owned(), 0)]);
        figures::GRANTS.add(5);
        let first = lines(&load, &mut told);
        assert!(first.iter().any(|line| line.starts_with("navvy.grants:") && line != "navvy.grants:0|c"), "{first:?}");
        assert!(first.contains(&"navvy.tasks:3|g|#class:medium,state:queued".to_owned()), "{first:?}");
        assert!(first.contains(&"navvy.tasks:1|g|#class:a_c_x:1,state:claimed".to_owned()), "{first:?}");
        assert!(first.contains(&"navvy.live_bytes_held:7|g".to_owned()), "{first:?}");
        // Nothing in this process counts what comes a second time.
        told.insert("navvy_pipelines_total".to_owned(), u64::MAX);
        assert!(lines(&load, &mut told).contains(&"navvy.pipelines:0|c".to_owned()));
    }

    #[test]
    fn a_pool_tells_where_its_machines_stand_and_what_came() {
        let report = serde_json::json!({
            "is_surveyed": true, "is_emptied": false, "launches": 5, "faults": {"capacity": 2}, "removals": {"used": 3},
            "kinds": [{"class": "medium", "image": "a|b", "making": 1, "warm": 2, "given": 0, "removing": 0, "waiting": 4, "oldest_s": 9}],
            "waits": {"at_most": [0, 0, 0, 0, 0, 0, 0], "count": 0, "sum_s": 0},
        });
        let report: Report = serde_json::from_value(report).unwrap();
        let mut told = HashMap::from([("navvy_pool_faults_total|#fault:capacity".to_owned(), 1)]);
        let said = of_pool(Some(&report), &mut told);
        for line in [
            "navvy.pool_up:1|g",
            "navvy.pool_machines:2|g|#class:medium,image:a_b,state:warm",
            "navvy.pool_waiting:4|g|#class:medium,image:a_b",
            "navvy.pool_launches:5|c",
            "navvy.pool_faults:1|c|#fault:capacity",
            "navvy.pool_removals:3|c|#why:used",
        ] {
            assert!(said.contains(&line.to_owned()), "{line}: {said:?}");
        }
        assert!(of_pool(Some(&report), &mut told).contains(&"navvy.pool_launches:0|c".to_owned()));
        assert_eq!(of_pool(None, &mut told), ["navvy.pool_up:0|g"]);
    }

    #[test]
    fn nomads_figures_keep_their_names_and_tags() {
        let tags = vec![("drain", "false".to_owned()), ("status", "re|ady".to_owned())];
        let figure = Figure { name: "circle.nomad.client_agent.resources.used.cpu".to_owned(), tags, value: 3 };
        assert_eq!(line(&figure), "circle.nomad.client_agent.resources.used.cpu:3|g|#drain:false,status:re_ady");
        let figure = Figure { name: "circle.nomad.server_agent.poll_failure".to_owned(), tags: vec![], value: 1 };
        assert_eq!(line(&figure), "circle.nomad.server_agent.poll_failure:1|g");
    }

    #[test]
    fn datagrams_are_whole_lines() {
        let lines: Vec<String> =
            (0..500).map(|nth| format!("navvy.tasks:{nth}|g|#class:{}", "x".repeat(nth % 90))).collect();
        let datagrams = datagrams(&lines);
        assert!(datagrams.len() > 10 && datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM));
        assert_eq!(datagrams.join("\n"), lines.join("\n"));
    }

    #[tokio::test]
    async fn figures_arrive() {
        let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_directory, health) = crate::probes::tests::health().await;
        let sending = tokio::spawn(send(listener.local_addr().unwrap(), Arc::new(health)));
        let mut datagram = [0; 2 * DATAGRAM];
        let length = listener.recv(&mut datagram).await.unwrap();
        sending.abort();
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        assert!(text.contains("navvy.claims:") && text.contains("navvy.live_bytes_held:0|g"), "{text}");
    }
}
