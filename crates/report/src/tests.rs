//! Golden reports of a record built by hand, and what no record may do to them.

mod golden;
mod hostile;
mod record;
mod summarise;
