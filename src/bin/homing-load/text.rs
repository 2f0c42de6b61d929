//! A report as people read it: one line for each kind of figure.

use std::fmt::{self, Display, Formatter};

use crate::{
    histogram::Quantiles,
    report::{Cpu, Latency, Memory, Messages, Receipts, Report},
};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            scenario,
            target,
            run,
            connections,
            seconds,
            ..
        } = self;
        writeln!(
            f,
            "{scenario} against {target}, run {run}: {connections} connections, {seconds:.3} s"
        )?;
        if let Some(messages) = &self.messages {
            messages.fmt(f)?;
        }
        for Latency { of, quantiles } in &self.latencies {
            writeln!(f, "  {of:<12} {quantiles}")?;
        }
        if let Some(cpu) = &self.cpu {
            cpu.fmt(f)?;
        }
        if let Some(memory) = &self.memory {
            memory.fmt(f)?;
        }
        if let Some(Receipts {
            frames,
            exact_after_seconds: after,
        }) = self.receipts
        {
            writeln!(
                f,
                "  receipts     {frames} frames; exact {after:.2} s after the last reading"
            )?;
        }
        for violation in &self.violations {
            writeln!(f, "  WRONG        {violation}")?;
        }
        Ok(())
    }
}

impl Display for Messages {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  messages     {} sent, {} acknowledged",
            self.sent, self.acknowledged
        )?;
        if let Some(rate) = self.acknowledged_per_second {
            write!(f, " ({rate:.0}/s)")?;
        }
        let Self {
            delivered,
            expected,
            delivered_per_second: rate,
            ..
        } = self;
        writeln!(f, ", {delivered} of {expected} delivered ({rate:.0}/s)")?;
        writeln!(
            f,
            "  faults       {} lost, {} doubled, {} reordered, {} gaps; {} repeated (allowed)",
            self.lost, self.doubled, self.reordered, self.gaps, self.repeated
        )?;
        match &self.first_refusal {
            Some(text) => writeln!(f, "  refused      {}, first: {text}", self.refused),
            None => Ok(()),
        }
    }
}

impl Display for Quantiles {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            p50_micros,
            p90_micros,
            p99_micros,
            max_micros,
            ..
        } = self;
        write!(
            f,
            "p50 {p50_micros:.0} µs, p90 {p90_micros:.0}, p99 {p99_micros:.0}, max {max_micros:.0}"
        )
    }
}

impl Display for Cpu {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let line = |f: &mut Formatter<'_>, of, cores: f64, each: Option<f64>| {
            write!(f, "  {of:<12} {cores:.3} cores")?;
            match each {
                Some(micros) => writeln!(f, ", {micros:.1} µs per delivery"),
                None => writeln!(f),
            }
        };
        if let Some(cores) = self.server_cores {
            line(f, "server CPU", cores, self.server_micros_per_delivery)?;
        }
        line(
            f,
            "own CPU",
            self.generator_cores,
            self.generator_micros_per_delivery,
        )
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  resident     {:.0} bytes per connection (PSS {:.0}); {} kB before, {} kB after",
            self.rss_bytes_per_connection,
            self.pss_bytes_per_connection,
            self.before.rss_bytes / 1024,
            self.after.rss_bytes / 1024
        )
    }
}
