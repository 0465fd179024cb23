"""A chosen format and what goes with it, as the node is told of them."""

from collections.abc import Sequence

from headwater_api.nodev1 import node_pb2

from headwater_gateway.sdp.rtp import AUDIO_CODECS, Format


def redundant_of(media: Format, offered: Sequence[Format]) -> Format | None:
    """The format that repeats earlier frames of Opus (RFC 2198); None: it has none, or this is not Opus.

    Its fmtp names the payload types of its blocks, `111/111`: all must be the media format.
    """
    if media.codec != node_pb2.CODEC_OPUS:
        return None  # nodes take what is inside for Opus
    blocks = {str(media.payload_type)}
    return next(
        (
            f
            for f in offered
            if f.codec == node_pb2.CODEC_RED
            and (f.clock_rate, f.channels) == (media.clock_rate, media.channels)
            and set(f.fmtp.strip().split("/")) == blocks
        ),
        None,
    )


def codec_maps(
    media: Format, rtx: Format | None, redundant: Format | None = None
) -> tuple[node_pb2.CodecMap, ...]:
    """As the node wants them: the media codec, its RTX, and what repeats its earlier frames."""
    maps = [
        node_pb2.CodecMap(
            payload_type=media.payload_type,
            codec=media.codec,
            clock_rate=media.clock_rate,
            channels=media.channels if media.codec in AUDIO_CODECS else 0,
            nack="nack" in media.feedback,
            pli="nack pli" in media.feedback,
            transport_cc="transport-cc" in media.feedback,
            fmtp=media.fmtp,
        )
    ]
    if rtx is not None:
        maps.append(
            node_pb2.CodecMap(
                payload_type=rtx.payload_type,
                codec=node_pb2.CODEC_RTX,
                clock_rate=rtx.clock_rate,
                apt=media.payload_type,
                fmtp=rtx.fmtp,
            )
        )
    if redundant is not None:
        maps.append(
            node_pb2.CodecMap(
                payload_type=redundant.payload_type,
                codec=node_pb2.CODEC_RED,
                clock_rate=redundant.clock_rate,
                channels=redundant.channels,
                apt=media.payload_type,
                nack="nack" in media.feedback,
                fmtp=redundant.fmtp,
            )
        )
    return tuple(maps)
