//! The VCDIFF codec against real programs and against damage.

mod damage;
mod peers;
mod tools;
