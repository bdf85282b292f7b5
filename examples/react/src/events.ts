// Generated from examples/demo/server/events.rs by tests/demo_types.rs. Do not edit.

export type Level = "info" | "warning" | "critical";

export type Progress = "running" | "done";

export type Notification = { title: string, message: string, to: string, at: number, };

export type Alert = { level: Level, message: string, at: number, };

export type Upload = { job: string, file: string, percent: number, state: Progress, at: number, };

export type Tick = { n: number, at: number, padding: string, };

export type Presence = { users: Array<string>, };

/** What each event's data is. */
export type DemoEvents = {
  notification: Notification;
  alert: Alert;
  upload: Upload;
  tick: Tick;
  presence: Presence;
};
