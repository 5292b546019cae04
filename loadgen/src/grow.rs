//! A run along a curve, from beginning to end: make the group, connect those who are there from the
//! beginning, let others come and go and everybody talk, wait until everything has arrived, judge.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    crowd::Crowd,
    curve::Curve,
    display::Display,
    judge::Judge,
    options::{Bounds, Clients},
    plan::{Plan, Shape},
    report::Report,
    run::{LINGER, SETTLE},
    setup::{Setup, SetupError},
};

/// Lets one group grow and shrink along a curve while its members talk, and judges every delivery.
///
/// # Errors
/// [`SetupError`] where it did not come about. What went wrong in it is in the report.
pub async fn follow_curve(clients: &Clients, bounds: Bounds, curve: &Curve) -> Result<Report, SetupError> {
    let seed = clients.seed.unwrap_or_else(rand::random);
    let run: u64 = rand::random();
    let first = Plan::new(&[Shape::new(1, curve.members(Duration::ZERO))], curve.length(), 0.0, 0.0, seed);
    let setup = Setup::new(clients, run, seed, curve.length(), curve.members_max() as usize)?;
    let display = Display::new(first.members().count());
    let admin = setup.admin().await?;
    let made = setup.make_groups(&admin, &first).await?;
    let present = setup.connect(&first, |count| display.connected(count)).await?;

    let begun = Instant::now() + SETTLE;
    let judge = Arc::new(Judge::new(run, begun, &first));
    judge.begin(&first, made);
    let (stop, stopped) = watch::channel(false);
    let report = Report { connections: present.len() as u64, seed, ..Report::default() };
    let mut crowd = Crowd::new(&setup, clients, judge.clone(), admin, stopped, report);
    for (id, present) in present {
        crowd.begin_with(id, setup.user(id)?, present);
    }
    tokio::select! {
        biased;
        () = crowd.follow(curve, bounds.turnover, begun) => {}
        () = display.show(judge.clone(), begun, curve.length()) => {}
    }
    let seconds = begun.elapsed().as_secs_f64();

    display.draining(clients.drain);
    let drained = Instant::now();
    let mut report = crowd.finish(&stop, LINGER).await;
    display.finish();
    report.seconds = seconds;
    report.drain_seconds = drained.elapsed().saturating_sub(LINGER).as_secs_f64();
    report.tell(&judge);
    report.network = setup.network_report(report.deliveries);
    Ok(report)
}
