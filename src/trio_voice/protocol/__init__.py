"""The OpenAI Realtime protocol without I/O: events as values, and what follows from them.

Core ring: no trio, no clock, no socket. From the wire inward:

* `codec` - text frames to events and back; a bad frame is a value (`RemoteProtocolError`), never an exception
* `server_events` - the 46 events a server sends, and the beta's names of six of them
* `repair` - what other servers get slightly wrong, made usable
* `client_events` - the 11 events a client sends
* `session_config` - what `session.update` sets, and `merged`, the rule by which it does
* `responses` - an answer asked for, reported, and paid
* `items` - what a conversation is made of
* `turns`, `history` - whose turn it is; what was said and heard (imported from where they are)

An event's class is its wire name in CamelCase: `response.output_audio.delta` is `ResponseOutputAudioDelta`.
"""

# ruff: noqa: I001 - in the order of the specification, one block per module
from __future__ import annotations

from trio_voice.protocol.client_events import (
    ClientEvent as ClientEvent,
    SessionUpdate as SessionUpdate,
    InputAudioBufferAppend as InputAudioBufferAppend,
    InputAudioBufferCommit as InputAudioBufferCommit,
    InputAudioBufferClear as InputAudioBufferClear,
    OutputAudioBufferClear as OutputAudioBufferClear,
    ConversationItemCreate as ConversationItemCreate,
    ConversationItemRetrieve as ConversationItemRetrieve,
    ConversationItemTruncate as ConversationItemTruncate,
    ConversationItemDelete as ConversationItemDelete,
    ResponseCreate as ResponseCreate,
    ResponseCancel as ResponseCancel,
    CLIENT_EVENTS as CLIENT_EVENTS,
)
from trio_voice.protocol.codec import (
    MAX_MESSAGE_BYTES as MAX_MESSAGE_BYTES,
    UnknownEvent as UnknownEvent,
    RemoteProtocolError as RemoteProtocolError,
    encode as encode,
    decode_server_event as decode_server_event,
    decode_client_event as decode_client_event,
    wire_name as wire_name,
)
from trio_voice.protocol.items import (
    Maybe as Maybe,
    ContentPart as ContentPart,
    Item as Item,
    Tool as Tool,
    ErrorDetail as ErrorDetail,
    ReportedError as ReportedError,
    Conversation as Conversation,
)
from trio_voice.protocol.responses import (
    ResponseConfig as ResponseConfig,
    CachedTokensDetails as CachedTokensDetails,
    InputTokenDetails as InputTokenDetails,
    OutputTokenDetails as OutputTokenDetails,
    Usage as Usage,
    TranscriptionUsage as TranscriptionUsage,
    RateLimit as RateLimit,
    StatusDetails as StatusDetails,
    Response as Response,
)
from trio_voice.protocol.server_events import (
    ServerEvent as ServerEvent,
    ErrorEvent as ErrorEvent,
    SessionCreated as SessionCreated,
    SessionUpdated as SessionUpdated,
    RateLimitsUpdated as RateLimitsUpdated,
    ConversationCreated as ConversationCreated,
    ConversationItemAdded as ConversationItemAdded,
    ConversationItemDone as ConversationItemDone,
    ConversationItemCreated as ConversationItemCreated,
    ConversationItemRetrieved as ConversationItemRetrieved,
    ConversationItemTruncated as ConversationItemTruncated,
    ConversationItemDeleted as ConversationItemDeleted,
    ConversationItemInputAudioTranscriptionDelta as ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionCompleted as ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionFailed as ConversationItemInputAudioTranscriptionFailed,
    ConversationItemInputAudioTranscriptionSegment as ConversationItemInputAudioTranscriptionSegment,
    InputAudioBufferCommitted as InputAudioBufferCommitted,
    InputAudioBufferCleared as InputAudioBufferCleared,
    InputAudioBufferSpeechStarted as InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped as InputAudioBufferSpeechStopped,
    InputAudioBufferTimeoutTriggered as InputAudioBufferTimeoutTriggered,
    InputAudioBufferDtmfEventReceived as InputAudioBufferDtmfEventReceived,
    OutputAudioBufferStarted as OutputAudioBufferStarted,
    OutputAudioBufferStopped as OutputAudioBufferStopped,
    OutputAudioBufferCleared as OutputAudioBufferCleared,
    ResponseCreated as ResponseCreated,
    ResponseDone as ResponseDone,
    ResponseOutputItemAdded as ResponseOutputItemAdded,
    ResponseOutputItemDone as ResponseOutputItemDone,
    ResponseContentPartAdded as ResponseContentPartAdded,
    ResponseContentPartDone as ResponseContentPartDone,
    ResponseOutputTextDelta as ResponseOutputTextDelta,
    ResponseOutputTextDone as ResponseOutputTextDone,
    ResponseOutputAudioDelta as ResponseOutputAudioDelta,
    ResponseOutputAudioDone as ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta as ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone as ResponseOutputAudioTranscriptDone,
    ResponseFunctionCallArgumentsDelta as ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone as ResponseFunctionCallArgumentsDone,
    ResponseMcpCallArgumentsDelta as ResponseMcpCallArgumentsDelta,
    ResponseMcpCallArgumentsDone as ResponseMcpCallArgumentsDone,
    ResponseMcpCallInProgress as ResponseMcpCallInProgress,
    ResponseMcpCallCompleted as ResponseMcpCallCompleted,
    ResponseMcpCallFailed as ResponseMcpCallFailed,
    McpListToolsInProgress as McpListToolsInProgress,
    McpListToolsCompleted as McpListToolsCompleted,
    McpListToolsFailed as McpListToolsFailed,
    ResponseTextDelta as ResponseTextDelta,
    ResponseTextDone as ResponseTextDone,
    ResponseAudioDelta as ResponseAudioDelta,
    ResponseAudioDone as ResponseAudioDone,
    ResponseAudioTranscriptDelta as ResponseAudioTranscriptDelta,
    ResponseAudioTranscriptDone as ResponseAudioTranscriptDone,
    SERVER_EVENTS as SERVER_EVENTS,
    BETA_SERVER_EVENTS as BETA_SERVER_EVENTS,
)
from trio_voice.protocol.session_config import (
    WireAudioFormat as WireAudioFormat,
    NoiseReduction as NoiseReduction,
    Transcription as Transcription,
    TurnDetection as TurnDetection,
    VoiceId as VoiceId,
    AudioInput as AudioInput,
    AudioOutput as AudioOutput,
    AudioConfig as AudioConfig,
    Reasoning as Reasoning,
    SessionConfig as SessionConfig,
    merged as merged,
)
