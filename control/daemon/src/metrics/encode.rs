//! The text of a scrape: every metric with its name, help and samples.

use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use trunkline_link::message::DropReason;
use trunkline_link::{ConductorCounter, RecorderCounter, WorkerCounter};
use trunkline_sinks::object::Verdict;

use super::{CallResult, Dataplane, Metrics};

/// Writes one metric with its samples: (label value, value) each.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    samples: impl IntoIterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in samples {
        let labels = [(label, value)];
        metric
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter::<NoLabelSet, u64, u64>(&count, None)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_calls(&mut encoder)?;
        let dataplane = self.dataplane();
        self.encode_capture(&dataplane, &mut encoder)?;
        encode_relay(&dataplane, &mut encoder)?;
        encode_resources(&dataplane, &mut encoder)
    }
}

impl Metrics {
    fn encode_calls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let read = |count: &AtomicU64| count.load(Relaxed);
        gauge(
            encoder,
            "trunkline_calls_active",
            "Live calls",
            read(&self.calls_active),
        )?;
        let calls = CallResult::ALL
            .iter()
            .map(|one| (one.name(), read(&self.calls[*one as usize])));
        family(
            encoder,
            "trunkline_calls",
            "Calls that are over, by result",
            "result",
            calls,
        )?;
        let verdicts = Verdict::ALL.iter().zip(&self.recordings);
        let recordings = verdicts.map(|(verdict, count)| (verdict.name(), read(count)));
        let help = "Finished recordings, by verdict";
        family(encoder, "trunkline_recordings", help, "verdict", recordings)?;
        let help = "Recordings that policy or the API asked for";
        counter(
            encoder,
            "trunkline_recordings_expected",
            help,
            read(&self.recordings_expected),
        )?;
        let help = "Recordings that run";
        gauge(
            encoder,
            "trunkline_recordings_active",
            help,
            read(&self.recordings_active),
        )?;
        self.encode_siprec(encoder)?;
        let help = "SIP requests from sources that are not allowed";
        counter(
            encoder,
            "trunkline_sip_sources_refused",
            help,
            read(&self.sources_refused),
        )?;
        let help = "Sources that were ignored for their senseless requests";
        counter(
            encoder,
            "trunkline_sip_sources_banned",
            help,
            read(&self.sources_banned),
        )?;
        let help = "SIP messages of ignored sources";
        counter(
            encoder,
            "trunkline_sip_banned_dropped",
            help,
            read(&self.banned_dropped),
        )?;
        let help = "SIP messages that could not be read";
        counter(
            encoder,
            "trunkline_sip_malformed",
            help,
            read(&self.messages_malformed),
        )?;
        let help = "Dataplane processes seen after the first";
        counter(
            encoder,
            "trunkline_dataplane_restarts",
            help,
            read(&self.dataplane_restarts),
        )?;
        self.encode_records(encoder)
    }

    fn encode_siprec(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Recording sessions, by server and state";
        let name = "trunkline_siprec_sessions";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let sessions = self.siprec.lock().unwrap_or_else(PoisonError::into_inner);
        for ((server, state), count) in sessions.iter() {
            let labels = [("server", server.as_str()), ("state", state.name())];
            metric
                .encode_family(&labels)?
                .encode_gauge(&i64::try_from(*count).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }

    /// Call detail records and hooks.
    fn encode_records(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        counter(
            encoder,
            "trunkline_cdr_dropped",
            "Call detail records that the disk did not take in time",
            self.cdrs_dropped.load(Relaxed),
        )?;
        let help =
            "Callbacks of hooks that end something and those that failed, by sink and result";
        let name = "trunkline_hook_callbacks";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        for one in hooks.iter() {
            let results = [
                ("delivered", one.delivered),
                ("dropped", one.dropped_callbacks),
                ("dropped_pcm", one.dropped_pcm),
                ("panicked", one.panics),
                ("put_off", one.put_off),
                ("dead", one.dead),
            ];
            for (result, count) in results {
                metric
                    .encode_family(&[("sink", one.sink.as_str()), ("result", result)])?
                    .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        let help = "Deliveries to sinks and hooks that wait, and dead letters";
        let name = "trunkline_deliveries";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let undelivered = self.undelivered.lock();
        for one in undelivered.unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = [("sink", one.sink.as_str()), ("state", one.state.name())];
            metric
                .encode_family(&labels)?
                .encode_gauge(&i64::try_from(one.count).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }

    fn encode_capture(
        &self,
        dataplane: &Dataplane,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> fmt::Result {
        let dropped = DropReason::ALL.iter().map(|reason| {
            let by_workers = dataplane.worker(WorkerCounter::capture_dropped(*reason));
            let finished = self.receipt_dropped[*reason as usize].load(Relaxed);
            let by_receipts =
                finished.max(self.receipt_dropped_seen[*reason as usize].load(Relaxed));
            (reason.name(), by_workers + by_receipts)
        });
        let help = "Packets that reached us and are in no recording, by reason";
        family(
            encoder,
            "trunkline_capture_dropped",
            help,
            "reason",
            dropped,
        )?;
        let frames = dataplane.worker(WorkerCounter::CaptureFrames);
        counter(
            encoder,
            "trunkline_capture_frames",
            "Frames captured",
            frames,
        )?;
        let bytes = dataplane.recorder(RecorderCounter::BytesWritten);
        counter(
            encoder,
            "trunkline_capture_written_bytes",
            "Bytes written to segments",
            bytes,
        )?;
        let errors = dataplane.recorder(RecorderCounter::WriteErrors);
        let help = "Failed writes, syncs and allocations of segments";
        counter(encoder, "trunkline_capture_write_errors", help, errors)?;
        let failing = dataplane.recorder_gauge(RecorderCounter::CaptureFailing);
        gauge(
            encoder,
            "trunkline_capture_failing",
            "1 while capture writes fail",
            failing,
        )
    }
}

fn encode_relay(dataplane: &Dataplane, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    use WorkerCounter as W;
    let packets = [("in", W::RtpPacketsIn), ("out", W::RtpPacketsOut)];
    let packets = packets.map(|(direction, one)| (direction, dataplane.worker(one)));
    let help = "RTP packets accepted and sent";
    family(encoder, "trunkline_rtp_packets", help, "direction", packets)?;
    let bytes = [("in", W::RtpBytesIn), ("out", W::RtpBytesOut)];
    let bytes = bytes.map(|(direction, one)| (direction, dataplane.worker(one)));
    family(
        encoder,
        "trunkline_rtp_bytes",
        "Bytes of those packets",
        "direction",
        bytes,
    )?;
    let packets = [("in", W::RtcpPacketsIn), ("out", W::RtcpPacketsOut)];
    let packets = packets.map(|(direction, one)| (direction, dataplane.worker(one)));
    family(
        encoder,
        "trunkline_rtcp_packets",
        "RTCP datagrams",
        "direction",
        packets,
    )?;
    for (name, help, one) in [
        (
            "trunkline_rtp_strangers",
            "Datagrams from sources not accepted",
            W::Strangers,
        ),
        (
            "trunkline_rtp_socket_drops",
            "Kernel drops on our own media sockets",
            W::SocketDrops,
        ),
        (
            "trunkline_rtp_malformed",
            "Datagrams that are neither RTP nor RTCP",
            W::Malformed,
        ),
        (
            "trunkline_rtp_rate_capped",
            "Packets above a port's rate cap",
            W::RateCap,
        ),
        (
            "trunkline_rtp_ports_left_unread",
            "Times that a flooded port was left unread for 100 ms",
            W::PortsLeftUnread,
        ),
        (
            "trunkline_rtp_send_failed",
            "Sends that the kernel refused",
            W::SendFailed,
        ),
        (
            "trunkline_rtp_source_changes",
            "Changes of a side's source",
            W::SourceChanges,
        ),
        (
            "trunkline_rtp_media_timeouts",
            "Sides silent for the media timeout",
            W::MediaTimeouts,
        ),
    ] {
        counter(encoder, name, help, dataplane.worker(one))?;
    }
    Ok(())
}

fn encode_resources(dataplane: &Dataplane, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    use ConductorCounter as C;
    for (name, help, one) in [
        ("trunkline_sessions", "Media sessions", C::Sessions),
        (
            "trunkline_port_pairs_free",
            "Port pairs that may be taken now",
            C::PortPairsFree,
        ),
        (
            "trunkline_port_pairs_resting",
            "Port pairs resting",
            C::PortPairsResting,
        ),
    ] {
        gauge(encoder, name, help, dataplane.conductor_gauge(one))?;
    }
    let cut = dataplane.conductor(C::PortRestsCut);
    counter(
        encoder,
        "trunkline_port_rests_cut",
        "Port pairs taken before their full rest",
        cut,
    )
}
