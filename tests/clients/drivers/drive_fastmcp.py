"""From upload to download with the tools that fastmcp makes of the document; prints what it saw as JSON."""

import asyncio
import json
import os
import sys
from typing import Any

import httpx2
from fastmcp import Client, FastMCP


async def main() -> None:
    headers = {"Authorization": f"Bearer {os.environ['PREFTUNE_API_KEY']}"}
    async with httpx2.AsyncClient(base_url=os.environ["PREFTUNE_URL"], headers=headers, timeout=60) as http:
        document = (await http.get("/openapi.json")).json()
        server = FastMCP.from_openapi(openapi_spec=document, client=http, name="preftune")
        async with Client(server) as client:
            sys.stdout.write(json.dumps(await drive(client)))


async def drive(client: Any) -> dict[str, Any]:
    async def call(tool: str, **arguments: Any) -> Any:
        return (await client.call_tool(tool, arguments)).structured_content

    with open(os.environ["PAIRS"], encoding="utf-8") as opened:
        pairs = opened.read()
    dataset = await call("create_dataset", file=pairs, name="mine")
    job = await call(
        "submit_job",
        base_model=os.environ["BASE_MODEL"],
        dataset_id=dataset["id"],
        sft={"epochs": 2},
        metadata={"by": os.environ["NAME"]},
    )
    while job["status"] != "succeeded":
        await asyncio.sleep(0.05)
        job = await call("get_job", job_id=job["id"])
    page = await call("get_job_metrics", job_id=job["id"])
    mine = await call("list_jobs", metadata=[f"by:{os.environ['NAME']}"])
    artifact = await call("get_artifact", job_id=job["id"])
    missing = await client.call_tool("get_job", {"job_id": "job_none"}, raise_on_error=False)
    invalid = await client.call_tool("submit_job", {"base_model": "none", "dataset_id": "none"}, raise_on_error=False)
    return {
        "dataset": dataset["id"],
        "job": job["id"],
        "steps": [point["step"] for point in page["points"]],
        "found": [each["id"] for each in mine["data"]],
        "sha256": artifact["files"][0]["sha256"],
        "missing": missing.content[0].text,
        "invalid": invalid.content[0].text,
    }


asyncio.run(main())
