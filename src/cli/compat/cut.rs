//! Cuts the delta engine's windows anew to the length that `-W` asks for, where there is a source.

use std::io::{self, Read, Write};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::stage::Stage;
use crate::matching;
use crate::vcdiff::{Inst, MAX_SEGMENT, Window};

/// Passes a stream through, and sends a copy of it to a [`Cutter`].
pub struct Tee {
    inner: Box<dyn Read + Send>,
    copy: Sender<Vec<u8>>,
}

impl Tee {
    /// Returns the stream, and the receiver of its copy. The copy holds no more than the engine has under way, which is
    /// bounded. The channel itself has no bound, so the two can never wait for each other.
    pub fn new(inner: Box<dyn Read + Send>) -> (Tee, Receiver<Vec<u8>>) {
        let (copy, receive) = unbounded();
        (Tee { inner, copy }, receive)
    }
}

impl Read for Tee {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        // If the receiver is gone, the other side has failed and reports that.
        let _ = self.copy.send(buf[..n].to_vec());
        Ok(n)
    }
}

/// Cuts the instructions of windows anew, into windows of another length.
pub struct Cutter {
    len: usize,
    copy: Receiver<Vec<u8>>,
    /// The part of the target that was received, from the start of the present window on.
    target: Vec<u8>,
}

impl Cutter {
    /// Makes windows of `len` bytes.
    pub fn new(len: usize, copy: Receiver<Vec<u8>>) -> Cutter {
        Cutter { len, copy, target: Vec::new() }
    }

    /// Adds the instructions of one of the engine's windows.
    pub fn window(&mut self, window: &Window, stage: &mut Stage<impl Write>) -> anyhow::Result<()> {
        let (pos, segment) = window.source.map_or((0, 0), |s| (s.pos, s.len));
        for inst in window.instructions() {
            let inst = inst?;
            let mut done = 0;
            while done < inst.len() {
                let at = stage.builder.target_len();
                if at == 0 {
                    stage.start();
                }
                let len = (self.len - at).min(inst.len() - done);
                match inst {
                    Inst::Copy { addr, .. } if addr < segment => {
                        let from = pos + addr + done as u64;
                        if stage.builder.span_with(from, len as u64) > MAX_SEGMENT {
                            self.finish(stage)?;
                            continue;
                        }
                        stage.builder.copy_source(from, len);
                    }
                    Inst::Run { byte, .. } => stage.builder.run(byte, len),
                    // What was copied from within its window may now lie in an earlier window, so it is added as new
                    // bytes.
                    Inst::Add { .. } | Inst::Copy { .. } => {
                        self.receive(at + len)?;
                        stage.add(&self.target[at..at + len]);
                    }
                }
                done += len;
                if stage.builder.target_len() == self.len {
                    self.finish(stage)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the present window, if there is one.
    pub fn finish(&mut self, stage: &mut Stage<impl Write>) -> anyhow::Result<()> {
        let len = stage.builder.target_len();
        if len > 0 {
            self.receive(len)?;
            stage.finish(Some(simd_adler32::adler32(&&self.target[..len])))?;
            self.target.drain(..len);
        }
        Ok(())
    }

    /// Waits for the target's bytes up to `end`. They are on their way, as the engine has read what it describes.
    fn receive(&mut self, end: usize) -> anyhow::Result<()> {
        while self.target.len() < end {
            let part = self.copy.recv().map_err(|_| matching::Error::Internal("a window lacks its data"))?;
            self.target.extend_from_slice(&part);
        }
        Ok(())
    }
}
