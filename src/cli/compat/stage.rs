//! The last stage of `encode` finds repetitions within a window, applies secondary compression, and writes the output.

use std::io::Write;

use anyhow::Context;

use super::own::Matcher;
use crate::vcdiff::{Inst, Window, WindowBuilder, secondary};

/// The state of the windows that are being written.
pub(super) struct Stage<'a, W> {
    pub builder: WindowBuilder,
    pub matcher: Option<Matcher>,
    pub secondary: Option<secondary::Encoder>,
    pub checksums: bool,
    pub bytes: Vec<u8>,
    pub windows: u64,
    pub out: &'a mut W,
}

impl<W: Write> Stage<'_, W> {
    pub fn start(&mut self) {
        if let Some(matcher) = &mut self.matcher {
            matcher.start();
        }
    }

    pub fn add(&mut self, data: &[u8]) {
        match &mut self.matcher {
            Some(matcher) => matcher.add(data, &mut self.builder),
            None => self.builder.add(data),
        }
    }

    pub fn window(&mut self, window: &Window) -> anyhow::Result<()> {
        let (pos, len) = window.source.map_or((0, 0), |s| (s.pos, s.len));
        self.start();
        for inst in window.instructions() {
            match inst? {
                Inst::Add { data } => self.add(data),
                Inst::Run { byte, len } => self.builder.run(byte, len),
                Inst::Copy { len: n, addr } if addr < len => self.builder.copy_source(pos + addr, n),
                Inst::Copy { len: n, addr } => self.builder.copy_target((addr - len) as usize, n),
            }
        }
        self.finish(window.adler32)
    }

    pub fn finish(&mut self, adler32: Option<u32>) -> anyhow::Result<()> {
        let adler32 = adler32.filter(|_| self.checksums);
        self.builder.finish_with(adler32, self.secondary.as_mut(), &mut self.bytes);
        self.windows += 1;
        self.write()
    }

    pub fn write(&mut self) -> anyhow::Result<()> {
        self.out.write_all(&self.bytes).context("write failed")?;
        self.bytes.clear();
        Ok(())
    }
}
