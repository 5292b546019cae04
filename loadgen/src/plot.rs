//! Draws what happened when, as SVG: panels one below the other over one time axis.
//!
//! Colours and lines that stand out on light paper and on dark; the text takes the viewer's colour where
//! the picture is embedded, and follows its preference where it stands alone.

use std::fmt::{self, Write};

use scale::Scale;

use crate::{
    report::Report,
    timeline::{Crowd, Step},
};

mod scale;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 64.0;
const PANEL: f64 = 118.0;
const GAP: f64 = 34.0;
const STYLE: &str = "svg{color:#333;background:#fff;font:12px system-ui,sans-serif}\
    @media(prefers-color-scheme:dark){svg{color:#ccc;background:#16181d}}\
    text{fill:currentColor}.small{font-size:11px;opacity:.75}.title{font-size:16px;font-weight:600}\
    .panel{font-weight:600}.grid{stroke:currentColor;stroke-opacity:.16}\
    path{fill:none;stroke-width:1.6;stroke-linejoin:round}.wanted{stroke-dasharray:4 3;stroke-width:1.1}";

/// One line of a panel: what it is called, its colour, and its value in a step, if it has one.
struct Line {
    name: &'static str,
    colour: &'static str,
    is_wanted: bool,
    value: fn(&Step) -> Option<f64>,
}

struct Panel {
    title: &'static str,
    values: Values,
    lines: Vec<Line>,
}

/// What the values of a panel are, and so how they are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// As they are.
    Counts,
    /// What happened in a step; drawn as what happens in a second.
    PerStep,
    /// From a fraction of one to thousands.
    Milliseconds,
}

const BLUE: &str = "#3b82c4";
const ORANGE: &str = "#e08a2e";
const GREEN: &str = "#3a9a6b";
const RED: &str = "#cf4f4f";
const GREY: &str = "#8a8f98";

fn line(name: &'static str, colour: &'static str, value: fn(&Step) -> Option<f64>) -> Line {
    Line { name, colour, is_wanted: false, value }
}

fn panels() -> Vec<Panel> {
    fn crowd(step: &Step, value: impl Fn(&Crowd) -> u32) -> Option<f64> {
        step.crowd.as_ref().map(|crowd| value(crowd).into())
    }
    fn some(count: u64, value: f64) -> Option<f64> {
        (count > 0).then_some(value)
    }
    let wanted = Line {
        is_wanted: true,
        ..line("by the curve", GREY, |step| crowd(step, |crowd| crowd.attendance.wanted))
    };
    let panel = |title, values, lines| Panel { title, values, lines };
    vec![
        panel(
            "members",
            Values::Counts,
            vec![
                wanted,
                line("connected", ORANGE, |step| crowd(step, |crowd| crowd.attendance.connected)),
                line("members", BLUE, |step| crowd(step, |crowd| crowd.attendance.members)),
            ],
        ),
        panel(
            "sub-groups",
            Values::Counts,
            vec![line("sub-groups", GREEN, |step| crowd(step, |crowd| crowd.attendance.sub_groups))],
        ),
        panel(
            "messages a second",
            Values::PerStep,
            vec![
                line("published", GREY, |step| Some(step.published as f64)),
                line("acknowledged", BLUE, |step| Some(step.acknowledged as f64)),
            ],
        ),
        panel(
            "deliveries a second",
            Values::PerStep,
            vec![line("deliveries", GREEN, |step| Some(step.deliveries as f64))],
        ),
        panel(
            "latency, ms",
            Values::Milliseconds,
            vec![
                line("receipt p50", BLUE, |step| some(step.acknowledged, step.publish_latency_ms.p50)),
                line("receipt p99", RED, |step| some(step.acknowledged, step.publish_latency_ms.p99)),
                line("delivery p50", GREEN, |step| some(step.deliveries, step.delivery_latency_ms.p50)),
                line("delivery p99", ORANGE, |step| some(step.deliveries, step.delivery_latency_ms.p99)),
            ],
        ),
        panel(
            "lag, ms",
            Values::Milliseconds,
            vec![line("furthest behind", RED, |step| some(step.deliveries, step.lag_ms))],
        ),
    ]
}

/// The timeline of a run, drawn.
#[must_use]
pub fn svg(report: &Report) -> String {
    let mut out = String::new();
    draw(&mut out, report).expect("a String takes all that is written to it");
    out
}

fn draw(out: &mut String, report: &Report) -> fmt::Result {
    let steps = &report.timeline;
    let seconds = steps.last().map_or(1.0, |last| last.at).max(1.0);
    let time = Scale::linear(0.0, seconds, LEFT, WIDTH - RIGHT);
    // A run whose group does not change its size has nobody to show in the first ones.
    let has_values =
        |panel: &Panel| panel.lines.iter().any(|line| steps.iter().any(|step| (line.value)(step).is_some()));
    let panels: Vec<_> = panels().into_iter().filter(has_values).collect();
    let height = TOP + panels.len() as f64 * (PANEL + GAP) + 8.0;
    writeln!(out, r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">"#)?;
    writeln!(out, "<style>{STYLE}</style>")?;
    let verdict = if report.passed { "passed" } else { "failed" };
    writeln!(out, r#"<text class="title" x="{LEFT}" y="26">shoal-loadgen: {verdict}</text>"#)?;
    let Report { lost, duplicated, reordered, deliveries, .. } = report;
    writeln!(
        out,
        r#"<text class="small" x="{LEFT}" y="44">{deliveries} deliveries, lost {lost}, doubled {duplicated}, out of order {reordered}</text>"#
    )?;
    for (at, panel) in panels.iter().enumerate() {
        let top = TOP + at as f64 * (PANEL + GAP);
        draw_panel(out, panel, steps, &time, top)?;
    }
    writeln!(out, "</svg>")
}

fn draw_panel(out: &mut String, panel: &Panel, steps: &[Step], time: &Scale, top: f64) -> fmt::Result {
    let unit = match (panel.values, steps) {
        (Values::PerStep, [first, second, ..]) => second.at - first.at,
        _ => 1.0,
    };
    let values = || panel.lines.iter().flat_map(|line| steps.iter().filter_map(line.value));
    let most = values().fold(0.0, f64::max) / unit;
    let least = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    let scale = match panel.values {
        Values::Counts | Values::PerStep => Scale::linear(0.0, most.max(4.0), top + PANEL, top + 14.0),
        Values::Milliseconds => {
            Scale::logarithmic(least.clamp(0.01, 1.0), most.max(10.0), top + PANEL, top + 14.0)
        }
    };
    writeln!(out, r#"<text class="panel" x="{LEFT}" y="{:.1}">{}</text>"#, top + 2.0, panel.title)?;
    for tick in scale.ticks() {
        let y = scale.at(tick);
        writeln!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
            WIDTH - RIGHT
        )?;
        let (x, y) = (LEFT - 8.0, y + 4.0);
        writeln!(
            out,
            r#"<text class="small" text-anchor="end" x="{x:.1}" y="{y:.1}">{}</text>"#,
            number(tick)
        )?;
    }
    for tick in time.ticks() {
        let (x, bottom) = (time.at(tick), top + PANEL);
        writeln!(
            out,
            r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{bottom:.1}"/>"#,
            top + 14.0
        )?;
        let y = bottom + 14.0;
        writeln!(
            out,
            r#"<text class="small" text-anchor="middle" x="{x:.1}" y="{y:.1}">{}</text>"#,
            clock(tick)
        )?;
    }
    for (at, line) in panel.lines.iter().enumerate() {
        let class = if line.is_wanted { r#" class="wanted""# } else { "" };
        let path = path(steps, |step| Some((line.value)(step)? / unit), time, &scale);
        writeln!(out, r#"<path{class} stroke="{}" d="{path}"/>"#, line.colour)?;
        let (x, y) = (WIDTH - RIGHT + 12.0, top + 24.0 + 17.0 * at as f64);
        writeln!(out, r#"<path stroke="{}" d="M{x:.1} {:.1}h16"/>"#, line.colour, y - 4.0)?;
        writeln!(out, r#"<text class="small" x="{:.1}" y="{y:.1}">{}</text>"#, x + 22.0, line.name)?;
    }
    Ok(())
}

/// A line through the steps that have a value, broken where one has none.
fn path(steps: &[Step], value: impl Fn(&Step) -> Option<f64>, time: &Scale, scale: &Scale) -> String {
    let mut path = String::new();
    let mut verb = 'M';
    for step in steps {
        match value(step) {
            Some(value) => {
                let _ = write!(path, "{verb}{:.1} {:.1}", time.at(step.at), scale.at(value));
                verb = 'L';
            }
            None => verb = 'M',
        }
    }
    path
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e4 => format!("{} k", value / 1e3),
        value => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Attendance;

    fn step(at: u32) -> Step {
        let attendance = Attendance {
            wanted: at,
            members: at,
            connected: at + 1,
            sub_groups: 1 + at / 50,
            layout_version: 0,
        };
        let crowd = Some(Crowd { attendance, behind_records: 0 });
        Step {
            at: at.into(),
            published: 3,
            acknowledged: 3,
            deliveries: 3,
            lag_ms: 0.5,
            crowd,
            ..Step::default()
        }
    }

    #[test]
    fn every_panel_has_its_lines_and_one_time() {
        let report = Report { timeline: (0..100).map(step).collect(), ..Report::default() };
        let svg = svg(&report);
        for panel in panels() {
            assert!(svg.contains(&format!(">{}<", panel.title)), "{}", panel.title);
            for line in panel.lines {
                assert!(svg.contains(&format!(">{}<", line.name)), "{}", line.name);
            }
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches(">1:00<").count(), panels().len());
    }

    #[test]
    fn a_run_in_which_nothing_happened_has_a_picture_too() {
        let svg = svg(&Report::default());
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_value() {
        let mut steps: Vec<_> = (0..4).map(step).collect();
        steps[1].deliveries = 0;
        let (time, scale) = (Scale::linear(0.0, 3.0, 0.0, 3.0), Scale::linear(0.0, 1.0, 0.0, 1.0));
        let lag = |step: &Step| (step.deliveries > 0).then_some(step.lag_ms);
        assert_eq!(path(&steps, lag, &time, &scale), "M0.0 0.5M2.0 0.5L3.0 0.5");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([90.0, 20_000.0, 3e6].map(number), ["90", "20 k", "3 M"]);
        assert_eq!([0.0, 90.0, 630.0].map(clock), ["0:00", "1:30", "10:30"]);
    }
}
