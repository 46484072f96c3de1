//! The `tidegate` command.

fn main() {
    println!("tidegate {}", env!("CARGO_PKG_VERSION"));
}
