//! Makes a pass for a row that another program sends, and waits until phones can get the pass.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use passkit_folder::Folder;
use passkit_server::identifiers::Kind;

use crate::making::{LiveMaker, MadeOne, Refused};

/// How long to wait until a new pass is served.
const WAIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Every tenth check also reads the file of the pass.
const READ_EVERY: u32 = 10;

/// Makes passes in a folder that the service serves.
#[derive(Clone)]
pub(crate) struct Making {
    pub(crate) maker: Arc<LiveMaker>,
    pub(crate) folder: Folder,
}

/// Why a request gets no pass.
pub(crate) enum NoPass {
    Refused(Refused),
    /// The pass is made, but phones can't get it yet.
    Late,
}

impl Making {
    pub(crate) fn kind(&self) -> Kind {
        self.maker.kind()
    }

    /// Makes the pass for a row. Returns once the pass is served and published. A phone can then register at once.
    pub(crate) async fn make(&self, row: Bytes) -> Result<Arc<MadeOne>, NoPass> {
        let made = self.maker.clone().make(&row).await;
        let made = Arc::new(made.map_err(NoPass::Refused)?);
        let started = Instant::now();
        let mut looks = 0;
        while !self.folder.has_published(&made.pass, &made.content) {
            looks += 1;
            // If another request has changed the pass since, this version is never served.
            if looks % READ_EVERY == 0 && self.is_replaced(&made).await {
                break;
            }
            if started.elapsed() >= WAIT {
                return Err(NoPass::Late);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(made)
    }

    async fn is_replaced(&self, made: &Arc<MadeOne>) -> bool {
        let (maker, made) = (self.maker.clone(), made.clone());
        let look = tokio::task::spawn_blocking(move || maker.is_replaced(&made)).await;
        look.unwrap_or(false)
    }
}
