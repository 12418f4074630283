use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};

use crate::{ArchiveBody, source::ArchiveContent};

/// The body of an answer of [`WalletService`](crate::WalletService).
pub struct ResponseBody(Content);

enum Content {
    /// Everything that is left to send, in one piece.
    Whole(Bytes),
    Stream {
        chunks: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
        /// Bytes that the stream still has to give.
        left: u64,
        /// The chunk that makes the archive whole. It is sent once the stream has ended well: a client that has all
        /// the bytes it was promised looks no further.
        last: Option<Bytes>,
    },
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self(Content::Whole(Bytes::new()))
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Whole(bytes))
    }
}

impl From<ArchiveBody> for ResponseBody {
    fn from(archive: ArchiveBody) -> Self {
        Self(match archive.content {
            ArchiveContent::Shared(bytes) => Content::Whole(bytes),
            ArchiveContent::Stream(chunks) => Content::Stream { chunks, left: archive.length, last: None },
        })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Stream { chunks, left, last } => loop {
                let chunk = match ready!(chunks.as_mut().poll_next(cx)) {
                    Some(Ok(chunk)) if chunk.is_empty() => continue,
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None if *left > 0 => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                    None => {
                        let last = last.take();
                        if last.is_some() {
                            self.0 = Content::Whole(Bytes::new());
                        }
                        return Poll::Ready(last.map(|chunk| Ok(Frame::data(chunk))));
                    }
                };
                *left = match left.checked_sub(chunk.len() as u64) {
                    Some(rest) => rest,
                    None => {
                        let error = io::Error::other("the archive is longer than its source said");
                        return Poll::Ready(Some(Err(error)));
                    }
                };
                if *left > 0 {
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                *last = Some(chunk);
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Content::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Stream { left, last, .. } => left + last.as_ref().map_or(0, |chunk| chunk.len() as u64),
        })
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = http_body::Body::size_hint(self).exact();
        f.debug_struct("ResponseBody").field("size", &size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body;

    use super::*;

    /// Gives these in turn, and is not ready in the place of a `None`.
    struct Chunks(Vec<Option<&'static str>>);

    impl Stream for Chunks {
        type Item = io::Result<Bytes>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            self.0.remove(0).map_or(Poll::Pending, |chunk| Poll::Ready(Some(Ok(chunk.into()))))
        }
    }

    /// The next frame, if there is one, and the size that is left behind it.
    fn next(body: &mut ResponseBody) -> (Poll<Option<Bytes>>, Option<u64>) {
        let frame = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let data = frame.map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()));
        (data, body.size_hint().exact())
    }

    fn ready(chunk: &'static str) -> Poll<Option<Bytes>> {
        Poll::Ready(Some(chunk.into()))
    }

    #[test]
    fn a_body_knows_its_size_and_its_end() {
        let empty = ResponseBody::empty();
        assert!(empty.is_end_stream());
        assert_eq!(empty.size_hint().exact(), Some(0));
        let mut whole = ResponseBody::from(Bytes::from_static(b"whole"));
        assert!(!whole.is_end_stream());
        assert_eq!(format!("{whole:?}"), "ResponseBody { size: Some(5), .. }");
        assert_eq!(next(&mut whole), (ready("whole"), Some(0)));
        assert!(whole.is_end_stream());
    }

    #[test]
    fn the_chunk_that_is_held_back_counts_as_left() {
        let chunks = Chunks(vec![Some("ab"), Some("cde"), None, None]);
        let mut body = ResponseBody::from(ArchiveBody::stream(5, chunks));
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(next(&mut body), (ready("ab"), Some(3)));
        for _ in 0..2 {
            assert_eq!(next(&mut body), (Poll::Pending, Some(3)));
            assert!(!body.is_end_stream());
        }
        assert_eq!(next(&mut body), (ready("cde"), Some(0)));
        assert!(body.is_end_stream());
    }
}
