//! A hop between nodes: the home's node and another one, beside quinn alone between two processes.

pub(crate) mod bare;

pub(crate) mod latency;

pub(crate) mod throughput;

use anyhow::Result;
use serde::Serialize;
use shoal_loadgen::report::Quantiles;
use throughput::{Node, WAYS};

use crate::{
    Bench,
    results::{PAYLOAD_BYTES, median, table},
};

/// All rounds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Hop {
    payload_bytes: usize,
    record_bytes: usize,
    latency: Vec<latency::Sample>,
    throughput: Vec<throughput::Sample>,
    bare: Vec<bare::Sample>,
}

impl Hop {
    pub(crate) async fn measure(bench: &Bench) -> Result<Self> {
        let record_bytes = bare::record(PAYLOAD_BYTES).len();
        let mut hop = Self { payload_bytes: PAYLOAD_BYTES, record_bytes, ..Self::default() };
        let (shoal, dir, measured) = (&bench.shoal, &bench.dir, bench.measured);
        for round in 1..=bench.rounds {
            eprintln!("a hop between nodes, round {round} of {}", bench.rounds);
            hop.latency.push(latency::measure(shoal, dir, measured, PAYLOAD_BYTES).await?);
            hop.bare.push(bare::measure(dir, measured, PAYLOAD_BYTES).await?);
            hop.throughput.extend(throughput::measure(shoal, dir, measured).await?);
        }
        hop.print();
        Ok(hop)
    }

    fn print(&self) {
        self.print_latency();
        self.print_throughput();
    }

    fn print_latency(&self) {
        type Figure = fn(&latency::Sample) -> Quantiles;
        let rows: [(&str, Figure, Option<Figure>); 7] = [
            ("quinn alone, there and back", |sample| sample.echo_ms, None),
            ("receipt, published at home", |sample| sample.from_home.receipt_ms, None),
            (
                "receipt, published elsewhere",
                |sample| sample.from_other.receipt_ms,
                Some(|sample| sample.from_home.receipt_ms),
            ),
            ("delivery, home to home", |sample| sample.from_home.at_home_ms, None),
            (
                "delivery, home to elsewhere",
                |sample| sample.from_home.at_other_ms,
                Some(|sample| sample.from_home.at_home_ms),
            ),
            (
                "delivery, elsewhere to home",
                |sample| sample.from_other.at_home_ms,
                Some(|sample| sample.from_home.at_home_ms),
            ),
            (
                "delivery, elsewhere to elsewhere",
                |sample| sample.from_other.at_other_ms,
                Some(|sample| sample.from_home.at_home_ms),
            ),
        ];
        let mut table = table(&["", "p50 ms", "p99 ms", "added at p50"]);
        for (what, figure, without) in rows {
            let p50 = |figure: Figure| median(self.latency.iter().map(|sample| figure(sample).p50));
            let p99 = median(self.latency.iter().map(|sample| figure(sample).p99));
            let added = without.map(|without| format!("{:.2}", p50(figure) - p50(without)));
            let p50 = format!("{:.2}", p50(figure));
            table.add_row([what.to_owned(), p50, format!("{p99:.2}"), added.unwrap_or_default()]);
        }
        println!("{table}");
    }

    fn print_throughput(&self) {
        let columns =
            ["senders", "receiver", "records /s", "CPU µs each: home", "other", "crossing", "MiB /s"];
        let mut table = table(&columns);
        let mut alone = 0.0;
        for (from, to) in WAYS {
            let rounds =
                || self.throughput.iter().filter(move |sample| (sample.from, sample.to) == (from, to));
            let of = |figure: fn(&throughput::Sample) -> f64| median(rounds().map(figure));
            let rate = of(|sample| sample.delivered_per_second);
            let (home, other) =
                (of(|sample| sample.home_cpu_us_per_message), of(|sample| sample.other_cpu_us_per_message));
            let crosses = (from, to) != (Node::Home, Node::Home);
            if !crosses {
                alone = home + other;
            }
            table.add_row([
                format!("{from:?}"),
                format!("{to:?}"),
                format!("{rate:.0}"),
                format!("{home:.1}"),
                format!("{other:.1}"),
                if crosses { format!("{:.1}", home + other - alone) } else { String::new() },
                format!("{:.1}", rate * self.record_bytes as f64 / f64::from(1 << 20)),
            ]);
        }
        let of = |figure: fn(&bare::Sample) -> f64| median(self.bare.iter().map(figure));
        table.add_row([
            "quinn alone".to_owned(),
            String::new(),
            format!("{:.0}", of(|sample| sample.records_per_second)),
            String::new(),
            String::new(),
            format!("{:.2}", of(|sample| sample.cpu_us_per_record)),
            format!("{:.1}", of(|sample| sample.mib_per_second)),
        ]);
        println!("{table}");
    }
}
