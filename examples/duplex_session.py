"""Full duplex inside another program: python examples/duplex_session.py question.wav

An audio library calls `Duplex.callback` with blocks of any size, from a thread that must never wait; the model works in
a thread of its own. The sound card is played by a file here, so that the example runs anywhere.
"""

import argparse
import queue
import threading
import time

import numpy as np
import soundfile

import personaplex as pp


class Duplex:
    """Between blocks of 24 kHz float32 samples of any length and a session, which wants frames of 1920."""

    def __init__(self, session: pp.Session) -> None:
        self.text = ""
        self._session = session
        self._heard: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._spoken: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._rest = np.zeros(0, np.float32)  # spoken, not yet played
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def callback(self, microphone: np.ndarray) -> np.ndarray:
        """One block in, one block of the same length out; silence where the agent has nothing ready."""
        self._heard.put(microphone.copy())
        while len(self._rest) < len(microphone) and not self._spoken.empty():
            self._rest = np.concatenate([self._rest, self._spoken.get()])
        block, self._rest = np.split(self._rest, [len(microphone)])
        return np.pad(block, (0, len(microphone) - len(block)))

    def close(self) -> None:
        self._heard.put(None)
        self._thread.join()

    def _work(self) -> None:
        pending = np.zeros(0, np.float32)
        while (block := self._heard.get()) is not None:
            pending = np.concatenate([pending, block])
            while len(pending) >= pp.FRAME:
                frame, pending = np.split(pending, [pp.FRAME])
                out = self._session.step(frame)
                self.text += out.text
                self._spoken.put(out.audio)


parser = argparse.ArgumentParser(description="Full duplex inside another program.")
parser.add_argument("question", help="24 kHz mono file that plays the microphone")
parser.add_argument("--model", default="aufklarer/PersonaPlex-7B-MLX-4bit", help="hub id, directory, or tiny")
args = parser.parse_args()

microphone, rate = soundfile.read(args.question, dtype="float32")
if rate != pp.SAMPLE_RATE or microphone.ndim != 1:
    parser.error(f"expected 24 kHz mono, {args.question} is another format")

model = pp.load(args.model)
model.warmup()
with model.session(voice="NATM1", system_prompt="You enjoy having a good conversation.", seed=1) as session:
    duplex = Duplex(session)
    played = []
    for begin in range(0, len(microphone), 512):
        played.append(duplex.callback(microphone[begin : begin + 512]))
        time.sleep(512 / pp.SAMPLE_RATE)
    duplex.close()
    print(f"{session.frames} frames heard and answered: {duplex.text}")
print(f"{np.count_nonzero(np.concatenate(played)) / pp.SAMPLE_RATE:.2f} s of the agent reached the loudspeaker")
