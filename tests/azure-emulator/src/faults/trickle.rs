//! A body that never stalls for long and yet takes its time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Interval, interval};

/// Comes in pieces at an even pace: the first at once, the last when the time is over.
pub(crate) struct Trickle {
    left: Bytes,
    pieces: usize,
    pace: Interval,
}

/// The pause between two pieces, unless there are too few bytes for so many.
const PAUSE: Duration = Duration::from_millis(100);

// === impl Trickle ===

impl Trickle {
    pub(crate) fn new(body: Bytes, time: Duration) -> Self {
        let pauses = usize::try_from(time.as_millis().div_ceil(PAUSE.as_millis())).unwrap_or(usize::MAX);
        let pauses = pauses.clamp(1, body.len().max(2) - 1);
        Self {
            left: body,
            pieces: pauses + 1,
            pace: interval(time.div_f64(pauses as f64)),
        }
    }
}

impl Body for Trickle {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(cx));
        let length = self.left.len().div_ceil(self.pieces);
        self.pieces -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
