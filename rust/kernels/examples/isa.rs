//! Prints the instruction set level that the kernels find on this machine: `cargo run --workspace --example isa`.

#![allow(clippy::print_stdout, reason = "a program that answers one question")]

fn main() {
    println!("{}", candle_phi_kernels::Isa::detect());
}
