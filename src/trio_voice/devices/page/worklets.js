// Two ends of the line, in the browser's audio thread: what is captured is cut into frames, what is received is played.

const QUANTA_PER_REPORT = 4; // of 128 samples each: 21 ms at 24 kHz
const RAMP_SAMPLES = 64; // a flush ends in a ramp instead of a click
const FULL_SCALE = 32768;
const SILENCE = new Float32Array(128);

class Capture extends AudioWorkletProcessor {
  constructor(options) {
    super();
    this.frameSamples = options.processorOptions.frameSamples;
    this.frame = new Int16Array(this.frameSamples);
    this.filled = 0;
  }

  process([channels]) {
    // A source that is muted has no channels: that is silence, which the server must hear to end an utterance.
    for (const sample of channels[0] ?? SILENCE) {
      this.frame[this.filled++] = Math.max(-FULL_SCALE, Math.min(FULL_SCALE - 1, Math.round(sample * FULL_SCALE)));
      if (this.filled === this.frameSamples) {
        this.port.postMessage(this.frame.buffer, [this.frame.buffer]); // given away, not copied
        this.frame = new Int16Array(this.frameSamples);
        this.filled = 0;
      }
    }
    return true;
  }
}

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.blocks = [];
    this.offset = 0; // in the first block
    this.run = 0;
    this.played = 0; // samples of this run
    this.reported = 0;
    this.quanta = 0;
    this.last = 0;
    this.ramp = 0; // samples of it that are left
    this.tape = null; // what was rendered, for tests
    this.port.onmessage = ({ data }) => this.receive(data);
  }

  receive(data) {
    if (data instanceof ArrayBuffer) this.blocks.push(new Int16Array(data));
    else if (data.flush !== undefined) {
      this.blocks = [];
      this.offset = this.played = this.reported = 0;
      this.run = data.flush;
      this.ramp = this.last ? RAMP_SAMPLES : 0;
      this.tape?.push({ flush: data.flush });
    } else if (data.record) this.tape = [];
    else if (data.rewind) this.port.postMessage({ tape: this.tape ?? [] });
  }

  process(_, [channels]) {
    const output = channels[0];
    let at = 0;
    for (; this.ramp > 0 && at < output.length; at++) output[at] = (this.last * --this.ramp) / RAMP_SAMPLES;
    if (this.ramp === 0 && at > 0 && !this.blocks.length) this.last = 0;
    while (at < output.length && this.blocks.length) {
      const block = this.blocks[0];
      const count = Math.min(output.length - at, block.length - this.offset);
      for (let n = 0; n < count; n++) output[at + n] = block[this.offset + n] / FULL_SCALE;
      at += count;
      this.offset += count;
      this.played += count;
      this.last = output[at - 1];
      if (this.offset === block.length) {
        this.blocks.shift();
        this.offset = 0;
      }
    }
    if (at < output.length && this.ramp === 0) this.last = 0;
    if (this.tape) this.tape.push({ samples: output.slice() });
    if (++this.quanta % QUANTA_PER_REPORT === 0 && this.played !== this.reported) {
      this.reported = this.played;
      this.port.postMessage({ run: this.run, played: this.played });
    }
    return true;
  }
}

registerProcessor("capture", Capture);
registerProcessor("playback", Playback);
