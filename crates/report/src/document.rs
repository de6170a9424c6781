//! A report before it has a form: blocks and tables of cells, which the terminal and Markdown
//! each render in their own way.

/// One thing under another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    /// The host, which every report names first.
    Host(String),
    /// Labelled lines.
    Facts(Vec<(&'static str, String)>),
    /// Something the reader must not miss.
    Warning(String),
    /// The start of a section.
    Heading(String),
    /// A table.
    Table(Table),
    /// A finding.
    Finding(String),
    /// A plain sentence.
    Note(String),
    /// An entry of a list, with output quoted line by line below it.
    Item { text: String, quote: Vec<String> },
}

/// Cells in rows and columns; the first column holds the rows' names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    /// What a reader of the table alone must know.
    pub(crate) caption: Option<String>,
}

/// A column's head.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) title: String,
    pub(crate) kind: Kind,
}

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Names, to the left.
    Name,
    /// Numbers, to the right, what follows them below each other.
    Number,
    /// Bars on one common axis.
    Bars,
    /// Explanations, to the left; left out where there is no room.
    Meaning,
}

/// A row; a `strong` one is what the table is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) cells: Vec<Cell>,
    pub(crate) strong: bool,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// Text, and what follows it in a sub-column of its own, such as `± 0.11`.
    Text { text: String, tail: String },
    /// A bar: where it starts and how long it is, as shares of the axis, 0 to 1.
    Bar { start: f64, length: f64 },
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), tail: String::new() }
    }

    pub(crate) fn with_tail(text: impl Into<String>, tail: impl Into<String>) -> Self {
        Self::Text { text: text.into(), tail: tail.into() }
    }

    /// A figure there is none of.
    pub(crate) fn missing() -> Self {
        Self::new("–")
    }
}

impl Column {
    pub(crate) fn new(title: impl Into<String>, kind: Kind) -> Self {
        Self { title: title.into(), kind }
    }
}
