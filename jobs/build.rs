//! Has a new migration be seen: the macro that takes them in is not run again by itself.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
