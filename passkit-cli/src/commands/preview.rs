use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use passkit_archive::PassFiles;
use passkit_picture::Drawing;
use passkit_server::text::OneLine;

use crate::{failure::Failure, output::Output};

/// Draws a pass as SVG.
///
/// FILE is a .pkpass, the folder of an unzipped pass, or a template. Its signature is not checked.
///
/// The picture is approximate: it has the colours, texts, images and barcodes of the pass, at about
/// the places where an iPhone shows them. An image that can't be shown is left out, and a line on
/// standard error says why. Orders have no picture.
///
/// Exit code: 0 the pass is drawn, 2 it could not be read or has no style that can be drawn.
#[derive(Args)]
pub(crate) struct Preview {
    /// The pass.
    file: PathBuf,

    /// The file to write. By default, the picture goes to standard output.
    #[arg(short, long, value_name = "SVG")]
    output: Option<PathBuf>,

    /// The side to draw.
    #[arg(long, value_enum, default_value_t = Side::Both)]
    side: Side,

    /// The language of the phone, such as "de" or "pt-BR".
    #[arg(long, value_name = "TAG", default_value = "en")]
    language: String,

    /// Draw the classic style of a pass that has a poster style too. Older phones show it.
    #[arg(long)]
    classic: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Front,
    Back,
    /// Both sides, beside each other.
    Both,
}

impl From<Side> for passkit_picture::Side {
    fn from(side: Side) -> Self {
        match side {
            Side::Front => Self::Front,
            Side::Back => Self::Back,
            Side::Both => Self::Both,
        }
    }
}

impl Preview {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let name = OneLine::path(&self.file).to_string();
        let failure = |error: &dyn std::error::Error| match error.to_string() {
            // Some errors already name the path.
            text if text.contains(&name) => Failure::new(text),
            _ => Failure::from_error(&name, error),
        };
        let files = PassFiles::open(&self.file).map_err(|error| failure(&error))?;
        let output = self.output.as_ref();
        let output = output.map(|path| Output::create(path, std::slice::from_ref(&self.file)));
        let output = output.transpose()?;
        let drawing = Drawing::new(self.side.into())
            .language(self.language)
            .classic(self.classic);
        let picture = drawing.draw(&files).map_err(|error| failure(&error))?;
        match output {
            Some(mut output) => {
                output.write(picture.svg.as_bytes())?;
                output.finish()?;
            }
            None => say!("{}", picture.svg.trim_end()),
        }
        for note in picture.notes {
            eprintln!("passkit: {name}: {}", OneLine::of(&note));
        }
        Ok(ExitCode::SUCCESS)
    }
}
