//! Generates the code of `navvy.processor.v1`. The compiler of `.proto` files is a crate: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    processor()
}

#[cfg(feature = "processor")]
fn processor() -> Result<(), Box<dyn std::error::Error>> {
    use protox::prost::Message as _;
    let set = protox::compile(["navvy/processor/v1/agents.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("navvy.processor.v1.bin"), set.encode_to_vec())?;
    // Tokens, secrets and URLs must not stand in a log: `Debug` of what holds them is written by hand.
    let silent =
        ["Secrets", "Variable", "SshKey", "ClaimedTask", "ClaimAnswer", "Url", "SegmentGrant", "PooledMachine"];
    let silent = silent.map(|message| format!(".navvy.processor.v1.{message}"));
    let builder = tonic_prost_build::configure().bytes(".navvy.processor.v1.Chunk").skip_debug(silent);
    builder.compile_fds(set)?;
    Ok(())
}

#[cfg(not(feature = "processor"))]
fn processor() -> Result<(), Box<dyn std::error::Error>> {
    Ok(())
}
