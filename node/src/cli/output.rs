//! Text for people or JSON for programs.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Faint, for what names a value.
pub(super) const LABEL: Style = Style::new().dimmed();
/// For what matters most.
pub(super) const STRONG: Style = Style::new().bold();
/// For what may be typed.
pub(super) const COMMAND: Style = AnsiColor::Cyan.on_default();
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// An error that knows what may help.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Hinted {
    /// What went wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: String,
}

/// How a command shows what it found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// One value: as a line of JSON, or as `text` makes it.
    pub(super) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        self.show_next(value, text).map(drop)
    }

    /// One of many values; false where nobody reads any more.
    pub(super) fn show_next<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<bool> {
        let text = if self.json { serde_json::to_string(value)? } else { text(value) };
        // Whoever reads may have gone, as `head` does; that is no error.
        match writeln!(io::stdout(), "{}", text.trim_end()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// An error, with its causes and what may help.
    pub(super) fn error(self, error: &anyhow::Error) {
        let hint = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()).map(|hinted| &hinted.hint);
        if self.json {
            let line = serde_json::json!({ "error": format!("{error:#}"), "hint": hint });
            eprintln!("{line}");
            return;
        }
        let (error_style, label) =
            (styled(ERROR, io::stderr().is_terminal()), styled(LABEL, io::stderr().is_terminal()));
        eprintln!("{error_style}error:{error_style:#} {error:#}");
        if let Some(hint) = hint {
            eprintln!(" {label}hint:{label:#} {hint}");
        }
    }
}

/// A style, or none where nobody sees it.
pub(super) fn styled(style: Style, is_terminal: bool) -> Style {
    let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_terminal && !colourless { style } else { Style::new() }
}

/// A table without lines, as wide as it must be.
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}
