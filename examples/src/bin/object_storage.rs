//! Signed tickets in object storage. They are streamed to phones, and the whole ticket is never in memory.
//!
//! `object_storage 8080 folder` uses a folder instead of a bucket. For a real bucket, replace `LocalFileSystem` with a client
//! of `object_store` for S3, Google Cloud Storage or Azure. `POST /tickets/A-1` with a seat stores the ticket and publishes
//! the change. `GET /tickets/A-1` downloads it.

use std::{env, io, slice, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing,
};
use futures_util::TryStreamExt as _;
use object_store::{Error, GetResult, ObjectStoreExt as _, local::LocalFileSystem, path};
use passkit_examples::{Failed, Outcome, Tickets, listen, serve};
use passkit_server::{
    ArchiveBody, Changed, Credentials, PassId, PassSource, PassState, SourceError, WalletService,
    async_trait, push::Publisher, store::MemoryStore,
};

struct Bucket {
    tickets: Tickets,
    objects: LocalFileSystem,
    publisher: Publisher,
}

/// Returns the name of the object with this ticket. A serial number may have any characters, and this function escapes them.
fn name(ticket: &PassId) -> path::Path {
    path::Path::from_iter([ticket.type_id.as_str(), ticket.serial.as_str()])
}

impl Bucket {
    /// Opens the object of a ticket. Its content is read later, while it is sent.
    async fn open(&self, ticket: &PassId) -> object_store::Result<Option<GetResult>> {
        match self.objects.get(&name(ticket)).await {
            Err(Error::NotFound { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }
}

#[async_trait]
impl PassSource for Bucket {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        // The token is computed, so that this needs no object. A stranger can't guess it, whether or not the ticket exists.
        let token = self.tickets.token(pass)?;
        Ok((pass.type_id == self.tickets.type_id).then(|| Credentials::from(&token)))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        // The size belongs to the same version of the object as the stream.
        Ok(self.open(pass).await?.map(|object| {
            let size = object.meta.size;
            ArchiveBody::stream(size, object.into_stream().map_err(io::Error::other))
        }))
    }
}

async fn download(
    State(bucket): State<Arc<Bucket>>,
    Path(serial): Path<String>,
) -> Result<Response, Failed> {
    let object = bucket.open(&bucket.tickets.id(&serial)?).await?;
    Ok(
        object.map_or(StatusCode::NOT_FOUND.into_response(), |object| {
            Body::from_stream(object.into_stream()).into_response()
        }),
    )
}

async fn move_to(
    State(bucket): State<Arc<Bucket>>,
    Path(serial): Path<String>,
    seat: String,
) -> Result<(), Failed> {
    let ticket = bucket.tickets.id(&serial)?;
    let archive = bucket.tickets.make(&ticket, &seat)?;
    // First the content, then the mark.
    bucket.objects.put(&name(&ticket), archive.into()).await?;
    let changed = Changed::Passes(slice::from_ref(&ticket.serial));
    Ok(bucket.publisher.publish(&ticket.type_id, changed).await?)
}

#[tokio::main]
async fn main() -> Outcome {
    let folder = env::args()
        .nth(2)
        .ok_or("usage: object_storage PORT FOLDER")?;
    let listener = listen().await?;
    let store = Arc::new(MemoryStore::new());
    let bucket = Arc::new(Bucket {
        tickets: Tickets::new(&format!("http://{}", listener.local_addr()?))?,
        objects: LocalFileSystem::new_with_prefix(folder)?,
        publisher: Publisher::marking(store.clone()),
    });
    let app = Router::new()
        .route("/tickets/{serial}", routing::get(download).post(move_to))
        .with_state(bucket.clone())
        .fallback_service(WalletService::new(store, bucket));
    serve(listener, app).await
}
