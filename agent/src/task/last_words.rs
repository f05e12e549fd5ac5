//! The last output of what has to end: it is waited for as long as more of it comes.

use std::time::Duration;

use navvy_job::figures;
use tokio::time::{Instant, timeout_at};

use super::step_sink::Activity;

/// However much still comes.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits for `over`: for `quiet` without output, and [`LONGEST`] in any case. The error says why its end was not waited for.
pub(super) async fn heard<T>(over: impl Future<Output = T>, activity: &Activity, quiet: Duration) -> Result<T, String> {
    let began = Instant::now();
    let mut over = std::pin::pin!(over);
    loop {
        let until = (activity.last().max(began) + quiet).min(began + LONGEST);
        if let Ok(over) = timeout_at(until, &mut over).await {
            return Ok(over);
        }
        // More may have come meanwhile.
        let until = (activity.last().max(began) + quiet).min(began + LONGEST);
        if until <= Instant::now() {
            let waited = figures::duration(figures::millis(began.elapsed()));
            return Err(format!("its end did not come within {waited}"));
        }
    }
}
