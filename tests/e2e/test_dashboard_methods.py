"""Supervised jobs and reward models in a real browser: the form asks for what has a meaning, the page shows figures."""

from api_server import RunningApi
from backends import claim, point, set_architecture
from browser import open_page
from playwright.sync_api import Browser, expect

from core.domain.dataset_rows import DatasetKind
from core.services.attempts import recording


def test_a_supervised_job_from_the_form_to_its_figures(browser: Browser, api: RunningApi) -> None:
    api.dataset_id()
    api.dataset_id("ds_demos", DatasetKind.DEMONSTRATION)
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/new")
        expect(page.locator("#f-beta")).to_be_visible()
        page.get_by_label("Method", exact=True).select_option("supervised")
        expect(page.locator("#f-beta")).to_be_hidden()
        page.get_by_label("Dataset", exact=True).select_option("ds_demos · 100 demonstrations")
        expect(page.get_by_text("of SFT on 95 rows")).to_be_visible()
        held_out = page.locator("#f-validation_dataset_id option", has_text="demonstrations")
        expect(held_out).to_have_count(1)
        page.get_by_label("Method", exact=True).select_option("preference")
        expect(held_out).to_have_count(0)
        page.get_by_label("Method", exact=True).select_option("supervised")
        page.get_by_label("Dataset", exact=True).select_option("ds_demos · 100 demonstrations")
        page.get_by_role("button", name="Start the job").click()
        expect(page.locator("h1 .badge")).to_have_text("queued")
        held = claim(api.backend)
        recording.record_points(
            held,
            [
                point(1, loss=2.5, stage="sft", mean_token_accuracy=0.25),
                point(1, loss=2.75, stage="sft", split="validation", mean_token_accuracy=0.5),
            ],
        )
        tile = page.locator(".tile", has_text="Token accuracy")
        expect(tile.locator(".value")).to_have_text("50.0 %")
        expect(page.get_by_role("heading", name="Token accuracy")).to_be_visible()
        expect(page.get_by_role("heading", name="Implicit rewards")).to_be_hidden()
        expect(page.locator("ol.stages li")).to_have_count(4)
        page.get_by_role("link", name="Compare …").click()
        expect(page.get_by_role("heading", name="SFT loss")).to_be_visible()  # the first of the curves that it has
        watched.check()


def test_a_reward_model_from_the_form_to_its_calibration(browser: Browser, api: RunningApi) -> None:
    api.dataset_id()
    api.dataset_id("ds_demos", DatasetKind.DEMONSTRATION)
    set_architecture(api.settings, "LlamaForCausalLM")
    with open_page(browser, api.url) as watched:
        page = watched.page
        page.goto("/ui/#/new")
        page.get_by_label("Method", exact=True).select_option("reward")
        for hidden in ("#f-beta", "#f-variant", "#f-sft", "#f-sample_prompts"):
            expect(page.locator(hidden)).to_be_hidden()
        expect(page.locator("#f-dataset_id option", has_text="demonstrations")).to_have_count(0)
        page.get_by_text("Reward model", exact=True).click()
        page.get_by_label("Centring of rewards").fill("0.01")
        expect(page.get_by_text("of a reward model on 95 pairs")).to_be_visible()
        page.get_by_role("button", name="Start the job").click()
        expect(page.locator("h1 .badge")).to_have_text("queued")
        held = claim(api.backend)
        assert held.spec["reward"]["center_rewards_coefficient"] == 0.01
        values = {"loss": 0.5, "rewards/margins": 1.5, "rewards/accuracies": 0.75}
        evaluated = point(1, stage="reward", split="validation", **values, **{"rewards/calibration_error": 0.125})
        recording.record_points(held, [point(1, stage="reward", **values), evaluated])
        expect(page.locator(".tile", has_text="Accuracy").locator(".value")).to_have_text("75.0 %")
        expect(page.get_by_role("heading", name="Calibration error")).to_be_visible()
        expect(page.get_by_role("heading", name="Rewards", exact=True)).to_be_visible()
        expect(page.get_by_role("heading", name="Implicit rewards")).to_be_hidden()
        expect(page.locator("ol.stages li")).to_have_count(4)
        page.get_by_role("link", name="Compare …").click()
        expect(page.get_by_role("heading", name="Accuracy of the reward model")).to_be_visible()
        watched.check()
