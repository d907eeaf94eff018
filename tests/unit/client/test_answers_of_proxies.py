"""What a proxy answers is not taken for the service's word."""

import httpx

from preftune.transport import problem_of


def test_an_answer_that_is_no_problem_names_who_gave_it() -> None:
    page = "<html><h1>413 Request Entity Too Large</h1></html>"
    error = problem_of(httpx.Response(413, text=page, headers={"Server": "nginx/1.22.1"}))
    assert error is not None
    assert (error.status, error.code) == (413, "not-from-the-service")
    assert "413 (server: nginx/1.22.1)" in str(error)


def test_a_problem_is_the_services_own() -> None:
    error = problem_of(httpx.Response(404, json={"code": "job-not-found", "detail": "There is no job x."}))
    assert error is not None
    assert (error.code, str(error)) == ("job-not-found", "There is no job x.")
    assert problem_of(httpx.Response(200)) is None
