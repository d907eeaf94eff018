// What every driver reports, and what it is told.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

function told(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}

export const url = told("PREFTUNE_URL");
export const key = told("PREFTUNE_API_KEY");
export const baseModel = told("BASE_MODEL");
export const name = told("NAME");
export const file = new Blob([readFileSync(told("PAIRS"))], { type: "application/jsonl" });

export interface Seen {
  dataset: string;
  job: string;
  steps: number[];
  lines: number;
  found: string[];
  sha256: string;
  archive: number;
  missing: string;
  invalid: string[];
  stream?: string[];
}

export function report(seen: Seen): void {
  console.log(JSON.stringify(seen));
}

export async function digest(bytes: Blob): Promise<string> {
  return createHash("sha256").update(Buffer.from(await bytes.arrayBuffer())).digest("hex");
}

export function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 50));
}

/** The value, which is there. */
export function given<T>(value: T | undefined, error?: unknown): T {
  if (value === undefined) throw new Error(`refused: ${JSON.stringify(error)}`);
  return value;
}
