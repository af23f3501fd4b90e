/** What the engine cannot do, in one sentence that can be shown as it is. */
export class EngineError extends Error {
  constructor(message) {
    super(message);
    this.name = "EngineError";
  }
}
