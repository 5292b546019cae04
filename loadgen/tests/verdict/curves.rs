//! One group that grows and shrinks while it talks.

use serde_json::Value;
use shoal_node::config::{GroupLimits, Limits};

use crate::served::Served;

/// A node that cuts groups small.
async fn served() -> Served {
    let group = GroupLimits { sub_group_max: 20, plan_observe_ms: 200, ..GroupLimits::default() };
    Served::with(Limits { group, ..Limits::default() }).await
}

fn steps<'a>(report: &'a Value, field: &'a str) -> impl Iterator<Item = u64> + 'a {
    report["timeline"].as_array().unwrap().iter().filter_map(move |step| step[field].as_u64())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_grows_and_shrinks_and_its_sub_groups_with_it() {
    let served = served().await;
    let plot = served.data.path().join("plot.svg");
    let curve = ["--from", "10", "--to", "120", "--over", "6s", "--hold", "2s", "--turnover", "100"];
    let plotted = ["--plot", plot.to_str().unwrap()];
    let (output, report) = served.load("grow", &[&curve[..], &plotted].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for fault in ["lost", "duplicated", "reordered", "corrupted", "phantoms", "strays", "holes"] {
        assert_eq!(report[fault], 0, "{fault}: {output:?}");
    }
    let turnout = &report["turnout"];
    assert!(turnout["members_max"].as_u64().unwrap() >= 100, "{turnout}");
    assert!(turnout["sub_groups_max"].as_u64().unwrap() >= 6, "{turnout}");
    assert!(turnout["sub_groups_last"].as_u64().unwrap() <= 3, "{turnout}");
    let grown = turnout["members_max"].as_u64().unwrap() - 10;
    let replaced = turnout["joined"].as_u64().unwrap().saturating_sub(grown);
    assert!(replaced > 3, "members are replaced beside the curve: {turnout}");
    assert_eq!(
        report["published"],
        report["acknowledged"].as_u64().unwrap() + report["refused"].as_u64().unwrap()
    );

    let sub_groups: Vec<_> = steps(&report, "sub_groups").collect();
    let peak = sub_groups.iter().position(|count| Some(count) == sub_groups.iter().max()).unwrap();
    assert!(sub_groups[..peak].is_sorted(), "{sub_groups:?}");
    assert!(
        sub_groups[0] < sub_groups[peak] && sub_groups.last() < Some(&sub_groups[peak]),
        "{sub_groups:?}"
    );
    assert!(steps(&report, "members").max().unwrap() >= 100);
    let last = report["timeline"].as_array().unwrap().last().unwrap();
    assert!(last["members"].as_u64().unwrap() <= 30, "{last}");
    assert!(std::fs::read_to_string(plot).unwrap().ends_with("</svg>\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_follows_its_hours() {
    let served = served().await;
    let percents: Vec<_> = (0..24).map(|hour| if (8..=16).contains(&hour) { "100" } else { "20" }).collect();
    let percents = percents.join(",");
    let day = ["--members", "50", "--over", "6s", "--member-percents", &percents, "--turnover", "0"];
    let (output, report) = served.load("day", &day).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let wanted: Vec<_> = steps(&report, "wanted").collect();
    assert_eq!((wanted[0], *wanted.last().unwrap()), (10, 10), "{wanted:?}");
    assert!(report["turnout"]["members_max"].as_u64().unwrap() > 30, "{output:?}");
    assert!(report["turnout"]["left"].as_u64().unwrap() > 20, "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_delivery_to_somebody_who_joined_late_is_found() {
    let served = served().await;
    let spoilt =
        [("drop", "lost"), ("double", "duplicated"), ("swap", "reordered"), ("corrupt", "corrupted")];
    for (how, field) in spoilt {
        let curve =
            ["--from", "3", "--to", "6", "--over", "1s", "--hold", "1s", "--no-back", "--turnover", "0"];
        let (output, report) = served.load("grow", &[&curve[..], &["--sabotage", how]].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{how}: {output:?}");
        assert_eq!(report[field], 1, "{how}: {report}");
    }
}
