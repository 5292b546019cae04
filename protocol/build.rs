//! Compiles the `.proto` files without protoc, which a newcomer's machine lacks.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["shoal/v1/record.proto", "shoal/v1/client.proto"], ["proto"])?;
    prost_build::Config::new()
        // Every `bytes` field is a slice of the frame it came in: payloads are never copied.
        .bytes(["."])
        .compile_fds(files)?;
    Ok(())
}
