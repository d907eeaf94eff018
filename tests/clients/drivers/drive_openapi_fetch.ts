// From upload to download with openapi-fetch, typed by openapi-typescript.
import createClient from "openapi-fetch";
import type { paths } from "./openapi_typescript";
import { baseModel, digest, file, given, key, name, pause, report, url } from "./seen";

const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });

const made = await client.POST("/datasets", {
  body: { file: "", name: "mine", metadata: '{"team": "a"}' },
  bodySerializer: (body) => {
    const form = new FormData();
    for (const [field, value] of Object.entries(body)) if (field !== "file") form.append(field, String(value));
    form.append("file", file, "pairs.jsonl");
    return form;
  },
});
const dataset = given(made.data, made.error);
const submitted = await client.POST("/jobs", {
  body: { base_model: baseModel, dataset_id: dataset.id, sft: { epochs: 2 }, metadata: { by: name } },
});
let job = given(submitted.data, submitted.error);
const params = { path: { job_id: job.id } };
while (job.status !== "succeeded") {
  await pause();
  job = given((await client.GET("/jobs/{job_id}", { params })).data);
}
const page = given((await client.GET("/jobs/{job_id}/metrics", { params })).data);
const table = given((await client.GET("/jobs/{job_id}/metrics.csv", { params, parseAs: "text" })).data);
const mine = given((await client.GET("/jobs", { params: { query: { metadata: [`by:${name}`] } } })).data);
const artifact = given((await client.GET("/jobs/{job_id}/artifact", { params })).data);
const chosen = { path: { ...params.path, path: artifact.files[0]!.path } };
const first = given((await client.GET("/jobs/{job_id}/artifact/files/{path}", { params: chosen, parseAs: "blob" })).data);
const archive = given((await client.GET("/jobs/{job_id}/artifact/archive", { params, parseAs: "blob" })).data);
const missing = given((await client.GET("/jobs/{job_id}", { params: { path: { job_id: "job_none" } } })).error);
const invalid = given((await client.POST("/jobs", { body: { base_model: "none", dataset_id: "none" } })).error);
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
});
