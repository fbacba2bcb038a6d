// Snapshots as the driver sees them: take one of the live tree while writes go on, stream one to a learner, stage one from a leader,
// load one. Each is a chain of short steps with the event loop in between; none of them holds the loop for long.

import {
  beginSnapshot,
  type DataTree,
  type DataTreeOptions,
  SnapshotLoader,
  type SnapshotWalk,
} from '@quorate/datatree';
import { hex64, type ServerId, type Zxid } from '@quorate/protocol';
import type { SnapshotReader, SnapshotWriter } from '@quorate/storage/disk';
import type { PeerMessage } from './peer-messages.ts';
import type { ReplicaPorts } from './ports.ts';

export type SnapshotSettings = {
  readonly logBytesMin: number;
  readonly retain: number;
  readonly chunkBytes: number;
  readonly stagger: number;
};

export class SnapshotTaker {
  readonly #settings: SnapshotSettings;
  readonly #ports: ReplicaPorts;
  #isTaking = false;
  #isWanted = false;
  #waiters: ((zxid: Zxid) => void)[] = [];

  constructor(settings: SnapshotSettings, ports: ReplicaPorts) {
    this.#settings = settings;
    this.#ports = ports;
  }

  /** Asks for a snapshot whatever the log's size; `onTaken` is called with the zxid of the next one that is begun after this call. */
  takeNow(onTaken: (zxid: Zxid) => void): void {
    this.#isWanted = true;
    this.#waiters.push(onTaken);
  }

  /** Begins a snapshot when one is due. Only at a zxid that is durable here, so that snapshot and log never have a gap between them. */
  maybeTake(tree: DataTree, durable: Zxid, onTaken: (zxid: Zxid) => void): void {
    if (this.#isTaking || (!this.#isWanted && !this.#isDue())) return;
    const zxid = tree.lastZxid;
    if (durable < zxid) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    this.#isWanted = false;
    if (this.#ports.disk.snapshots()[0]?.zxid === zxid) {
      for (const waiter of waiters) waiter(zxid);
      return;
    }
    this.#isTaking = true;
    const startedMs = this.#ports.clock.nowMs();
    const walk = beginSnapshot(tree);
    const writer = this.#ports.disk.beginSnapshot(zxid);
    this.#pump(walk, writer, (error, bytes) => {
      this.#isTaking = false;
      if (error !== null) {
        this.#ports.fatal(error);
        return;
      }
      this.#ports.log('info', 'snapshot taken', {
        zxid: hex64(zxid),
        bytes,
        durationMs: Math.round(this.#ports.clock.nowMs() - startedMs),
      });
      onTaken(zxid);
      for (const waiter of waiters) waiter(zxid);
    });
  }

  #isDue(): boolean {
    const newestBytes = this.#ports.disk.snapshots()[0]?.sizeBytes ?? 0;
    const wanted = Math.max(this.#settings.logBytesMin, newestBytes);
    return this.#ports.disk.logBytes() >= wanted * (1 + this.#settings.stagger / 4);
  }

  #pump(walk: SnapshotWalk, writer: SnapshotWriter, done: (error: Error | null, bytes: number) => void): void {
    let bytes = 0;
    const step = (): void => {
      const chunk = walk.next(this.#settings.chunkBytes);
      if (chunk === null) {
        writer.finish((error) => done(error, bytes));
        return;
      }
      bytes += chunk.length;
      writer.write(chunk, (error) => {
        if (error !== null) {
          walk.abort();
          writer.abort();
          done(error, bytes);
        } else {
          this.#ports.schedule(step);
        }
      });
    };
    step();
  }
}

/** Leader: streams snapshot files to learners, each at the learner's own pace. */
export class SnapshotSender {
  readonly #ports: ReplicaPorts;
  readonly #sending = new Map<ServerId, SnapshotReader>();

  constructor(ports: ReplicaPorts) {
    this.#ports = ports;
  }

  /** Sends the bytes; Zab has announced them. done(false): the link was lost or the file is damaged. */
  send(to: ServerId, epoch: number, zxid: Zxid, done: (isDone: boolean) => void): void {
    this.abort(to);
    const reader = this.#ports.disk.openSnapshot(zxid);
    this.#sending.set(to, reader);
    let index = 0;
    const fail = (): void => {
      if (this.#sending.get(to) === reader) this.#sending.delete(to);
      reader.close();
      done(false);
    };
    const step = (): void => {
      reader.next((error, chunk) => {
        if (error !== null) {
          this.#ports.log('error', 'a snapshot cannot be read', { zxid: hex64(zxid), error: error.message });
          fail();
          return;
        }
        if (this.#sending.get(to) !== reader) {
          fail();
          return;
        }
        const message: PeerMessage = {
          kind: 'snapshotChunk',
          epoch,
          zxid,
          index,
          last: chunk === null,
          bytes: chunk ?? new Uint8Array(0),
        };
        index += 1;
        this.#ports.network.sendBulk(to, message, (ok) => {
          if (!ok) fail();
          else if (chunk !== null) step();
          else {
            this.#sending.delete(to);
            reader.close();
            done(true);
          }
        });
      });
    };
    step();
  }

  /** The next step of this transfer ends it. */
  abort(to: ServerId): void {
    this.#sending.delete(to);
  }

  abortAll(): void {
    this.#sending.clear();
  }
}

type Receiving = {
  readonly from: ServerId;
  readonly epoch: number;
  /** Known from the first chunk on. */
  zxid: Zxid | null;
  writer: SnapshotWriter | null;
  nextIndex: number;
};

/** Learner: stages the snapshot that a leader sends; nothing of it touches the live tree or the log. */
export class SnapshotReceiver {
  readonly #ports: ReplicaPorts;
  #receiving: Receiving | null = null;

  constructor(ports: ReplicaPorts) {
    this.#ports = ports;
  }

  isReceivingFrom(from: ServerId): boolean {
    return this.#receiving !== null && this.#receiving.from === from;
  }

  /** The leader announced a snapshot: until it is staged, what follows on its stream has to wait. */
  begin(from: ServerId, epoch: number): void {
    this.discard();
    this.#receiving = { from, epoch, zxid: null, writer: null, nextIndex: 0 };
  }

  /** onStaged(null): complete, verified and staged. Called once per snapshot. */
  onChunk(
    from: ServerId,
    message: Extract<PeerMessage, { kind: 'snapshotChunk' }>,
    onStaged: (error: Error | null) => void,
  ): void {
    const receiving = this.#receiving;
    if (receiving === null || receiving.from !== from || receiving.epoch !== message.epoch) return;
    if (message.index !== receiving.nextIndex || (receiving.zxid !== null && receiving.zxid !== message.zxid)) {
      onStaged(new Error(`snapshot chunk ${message.index} came instead of ${receiving.nextIndex}`));
      return;
    }
    receiving.nextIndex += 1;
    receiving.zxid = message.zxid;
    receiving.writer ??= this.#ports.disk.stageSnapshot(message.zxid);
    const writer = receiving.writer;
    const finish = (error: Error | null): void => {
      if (this.#receiving !== receiving) return;
      if (error !== null) onStaged(error);
      else if (message.last) {
        writer.finish((finishError) => {
          if (this.#receiving !== receiving) return;
          this.#receiving = null;
          onStaged(finishError);
        });
      }
    };
    if (message.bytes.length > 0) writer.write(message.bytes, finish);
    else finish(null);
  }

  discard(): void {
    const receiving = this.#receiving;
    if (receiving === null) return;
    this.#receiving = null;
    receiving.writer?.abort();
  }

  discardFrom(from: ServerId): void {
    if (this.isReceivingFrom(from)) this.discard();
  }
}

export function loadSnapshot(
  ports: ReplicaPorts,
  options: DataTreeOptions,
  zxid: Zxid,
  done: (error: Error | null, loaded: DataTree | null) => void,
): void {
  const loader = new SnapshotLoader(options);
  const reader = ports.disk.openSnapshot(zxid);
  const step = (): void => {
    reader.next((error, chunk) => {
      if (error !== null) {
        reader.close();
        done(error, null);
        return;
      }
      try {
        if (chunk === null) {
          reader.close();
          done(null, loader.finish().tree);
          return;
        }
        loader.push(chunk);
      } catch (loadError) {
        reader.close();
        done(loadError instanceof Error ? loadError : new Error(String(loadError)), null);
        return;
      }
      ports.schedule(step);
    });
  };
  step();
}
