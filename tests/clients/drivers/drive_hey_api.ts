// From upload to download with the client of @hey-api/openapi-ts, the live stream among it.
import { client } from "./hey_api/client.gen";
import {
  createDataset,
  createDatasetFromBody,
  getArtifact,
  getArtifactArchive,
  getArtifactFile,
  getJob,
  getJobMetrics,
  getJobMetricsCsv,
  listJobs,
  streamJob,
  submitJob,
} from "./hey_api";
import { baseModel, digest, file, given, key, name, pause, report, url } from "./seen";

client.setConfig({ baseUrl: url, auth: () => key });

const made = await createDataset({ body: { file, name: "mine", metadata: '{"team": "a"}' } });
const dataset = given(made.data, made.error);
const raw = await createDatasetFromBody({ body: file, query: { name: "raw" } });
if (given(raw.data, raw.error).sha256 !== dataset.sha256) throw new Error("the raw body came otherwise");
const submitted = await submitJob({
  body: { base_model: baseModel, dataset_id: dataset.id, sft: { epochs: 2 }, metadata: { by: name } },
});
let job = given(submitted.data, submitted.error);
const path = { job_id: job.id };
const stream: string[] = [];
const points: number[] = [];
const live = await streamJob({
  path,
  onSseEvent: (event) => {
    if (event.event) stream.push(event.event);
  },
});
for await (const data of live.stream) {
  if (Array.isArray(data)) points.push(...data.map((point) => point.step));
}
while (job.status !== "succeeded") {
  await pause();
  job = given((await getJob({ path })).data);
}
const page = given((await getJobMetrics({ path })).data);
if (page.points.map((point) => point.step).join() !== points.join()) throw new Error(`streamed: ${points.join()}`);
const table = given((await getJobMetricsCsv({ path })).data);
const mine = given((await listJobs({ query: { metadata: [`by:${name}`] } })).data);
const artifact = given((await getArtifact({ path })).data);
const first = given((await getArtifactFile({ path: { ...path, path: artifact.files[0]!.path } })).data);
const archive = given((await getArtifactArchive({ path, parseAs: "blob" })).data);
const missing = given((await getJob({ path: { job_id: "job_none" } })).error);
const invalid = given((await submitJob({ body: { base_model: "none", dataset_id: "none" } })).error);
report({
  dataset: dataset.id,
  job: job.id,
  steps: page.points.map((point) => point.step),
  lines: table.trim().split("\n").length,
  found: mine.data.map((each) => each.id),
  sha256: await digest(first),
  archive: archive.size,
  missing: missing.code,
  invalid: (invalid.errors ?? []).map((error) => error.pointer),
  stream: [...new Set(stream)].sort(),
});
