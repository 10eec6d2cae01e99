// The page's line to the runtime: microphone up, sound down, over one WebSocket.

export class Line extends EventTarget {
  /** Events: "open", "closed" (detail: reason), "message" (detail: what the application said). */
  constructor(url, { echoCancellation = true, noiseSuppression = true, autoGainControl = true } = {}) {
    super();
    this.url = url;
    this.processing = { echoCancellation, noiseSuppression, autoGainControl };
    this.contexts = new Map(); // by sample rate
  }

  /** Call it from a click: browsers give sound to nobody who was not asked. */
  async open() {
    // Wanted from the start, so that the question is asked while the user's click still counts.
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...this.processing } });
    this.socket = new WebSocket(this.url);
    this.socket.binaryType = "arraybuffer";
    this.pending = Promise.resolve(); // one message after the other: opening a device takes a while
    this.socket.onmessage = ({ data }) => {
      // Sound and the flushes between it stay in order: once there is a loudspeaker both go to it at once.
      const message = data instanceof ArrayBuffer ? data : JSON.parse(data);
      if (this.playback && this.#isSound(message)) this.playback.port.postMessage(message);
      else this.pending = this.pending.then(() => this.#receive(message)).catch((error) => this.#fail(error));
    };
    this.socket.onclose = ({ reason }) => this.close(reason || "the connection is lost");
    await new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onerror = () => reject(new Error(`nothing answers at ${this.url}`));
    });
    this.dispatchEvent(new Event("open"));
  }

  /** Send something to the application. */
  tell(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  set muted(muted) {
    for (const track of this.stream?.getTracks() ?? []) track.enabled = !muted;
  }

  close(reason = "") {
    if (this.closed) return;
    this.closed = true;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    for (const context of this.contexts.values()) context.close();
    this.socket?.close();
    this.dispatchEvent(new CustomEvent("closed", { detail: reason }));
  }

  #isSound(message) {
    return message instanceof ArrayBuffer || message.flush !== undefined;
  }

  async #receive(message) {
    if (this.#isSound(message)) this.playback?.port.postMessage(message);
    else if (message.play) await this.#play(message.play);
    else if (message.hear !== undefined) await this.#hear(message.hear);
    else this.dispatchEvent(new CustomEvent("message", { detail: message }));
  }

  async #context(rate) {
    if (!this.contexts.has(rate)) {
      const context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
      this.contexts.set(rate, context);
      await context.audioWorklet.addModule(new URL("worklets.js", import.meta.url));
      await context.resume();
    }
    return this.contexts.get(rate);
  }

  async #play({ rate_hz: rate }) {
    const context = await this.#context(rate);
    this.playback?.disconnect();
    const node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    node.port.onmessage = ({ data }) => {
      if (data.tape) this.onTape?.(data.tape);
      else this.tell({ progress: { ...data, latency_ms: (context.outputLatency || context.baseLatency || 0) * 1000 } });
    };
    node.connect(context.destination);
    this.playback = node;
  }

  async #hear(wanted) {
    this.capture?.disconnect();
    this.capture = undefined;
    if (!wanted) return;
    const context = await this.#context(wanted.rate_hz);
    const node = new AudioWorkletNode(context, "capture", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { frameSamples: wanted.frame_samples },
    });
    node.port.onmessage = ({ data }) => {
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
    };
    context.createMediaStreamSource(this.stream).connect(node);
    this.capture = node;
  }

  #fail(error) {
    this.tell({ failed: String(error?.message ?? error) });
    this.close(String(error?.message ?? error));
  }
}
