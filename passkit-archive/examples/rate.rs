//! Makes signed passes from a folder, and prints how many it makes per second. With `bare`, it only signs their manifest.
//! If the certificate has an issuer, its file contains the issuer too.
//!
//! ```sh
//! cargo run --release -p passkit-archive --example rate -- FOLDER CERTIFICATE KEY THREADS SECONDS [bare]
//! ```
//!
//! `benches/generator/run` compares the rate with that of another library, and `benches/make/run` with that of
//! `passkit make`.

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use passkit_archive::{ArchiveBuilder, BuildError, PassFiles, Purpose, Signer};
use passkit_identity::Identity;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, certificate, key, threads, seconds, more @ ..] = &arguments[..] else {
        return Err("usage: rate FOLDER CERTIFICATE KEY THREADS SECONDS [bare]".into());
    };
    let is_bare = matches!(more, [word] if word == "bare");
    let identity = Identity::from_files(None, certificate, key)?;
    let issuer = identity.chain().last().ok_or("no certificate")?;
    let signer = Signer::new(&identity, Some(issuer))?;
    let builder = PassFiles::open(folder)?.into_builder();
    let text = fs::read_to_string(Path::new(folder).join("pass.json"))?;
    let (threads, time) = (threads.parse()?, Duration::from_secs_f64(seconds.parse()?));
    let rates = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_: usize| scope.spawn(|| rate(&builder, &text, &signer, time, is_bare)))
            .collect();
        let rates = threads.into_iter().map(|thread| match thread.join() {
            Ok(rate) => rate.map_err(Into::into),
            Err(_) => Err("a thread panicked".into()),
        });
        rates.collect::<Result<Vec<f64>, Box<dyn Error>>>()
    })?;
    println!("{:.1}", rates.iter().sum::<f64>());
    Ok(())
}

/// Makes passes for this time. Returns how many it made in a second.
fn rate(
    builder: &ArchiveBuilder,
    text: &str,
    signer: &Signer,
    time: Duration,
    is_bare: bool,
) -> Result<f64, BuildError> {
    let start = Instant::now();
    let mut made = 0_u32;
    let manifest = builder.manifest();
    while start.elapsed() < time {
        made += 1;
        if is_bare {
            signer.sign(Purpose::Manifest, &manifest)?;
            continue;
        }
        let json = text.replace("\"2001\"", &format!("\"{made}\""));
        builder
            .clone()
            .file("pass.json", json)
            .build_signed(signer)?;
    }
    Ok(f64::from(made) / start.elapsed().as_secs_f64())
}
