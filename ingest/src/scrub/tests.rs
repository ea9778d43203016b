//! P1: what is planted in any place of a draft is in none of the columns that come out.

mod canaries;
mod detectors;
mod hostile;
mod places;
mod shapes;
