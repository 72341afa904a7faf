//! The VCDIFF codec against real programs and against damage.

mod cli;
mod damage;
mod peers;
mod tools;
