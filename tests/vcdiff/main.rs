//! The VCDIFF codec against real programs and against damage.

mod cli;
mod damage;
mod ends;
mod options;
mod peers;
mod tools;
