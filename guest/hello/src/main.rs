//! The smallest workload: prints one line and exits with 0. It is the floor of every comparison.

fn main() {
    println!("hello");
}
