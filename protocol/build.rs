//! Compiles the `.proto` files without protoc, which a newcomer's machine lacks.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["record", "client", "peer"].map(|name| format!("shoal/v1/{name}.proto"));
    let files = protox::compile(files, ["proto"])?;
    prost_build::Config::new()
        // Every `bytes` field is a slice of the frame it came in: payloads are never copied.
        .bytes(["."])
        .compile_fds(files)?;
    Ok(())
}
